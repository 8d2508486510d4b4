"""Files of the host with their whole text and their mode; owned by root when they are new."""

from __future__ import annotations

from inferfleet.hostprep.facts import Facts, Look, literal
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Run

# Beginnings of paths that decide who may log in, which packets come through, and how it boots.
CUTTING = (
    "/etc/ssh/", "/etc/pam.d/", "/etc/security/", "/etc/sudoers", "/etc/hosts.allow",
    "/etc/hosts.deny", "/etc/network/", "/etc/netplan/", "/etc/systemd/network/",
    "/etc/NetworkManager/", "/etc/nftables", "/etc/iptables/", "/etc/sysconfig/", "/etc/ufw/",
    "/etc/firewalld/", "/etc/fstab", "/etc/default/grub", "/etc/kernel/", "/boot/",
)  # fmt: skip


class Files:
    """The kind `files`. Several files may name one program that follows their change."""

    def look(self, ground: Ground) -> Look:
        paths = tuple(literal(wanted.key) for wanted in ground.of("files"))
        return Look(paths, stats=paths)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings = [_finding(wanted, facts) for wanted in ground.of("files")]
        ours = [finding.wanted for finding in findings if finding.verdict in ("ok", "differs")]
        files = tuple(
            PutFile(
                wanted.key,
                content(wanted),
                int(wanted.value["mode"], 8),
                _after(wanted),
                cuts=wanted.key.startswith(CUTTING),
            )
            for wanted in ours
        )
        changes = tuple(_chmod(wanted, facts) for wanted in ours if _mode(wanted, facts) is False)
        return Judgement(tuple(findings), files, changes)


def content(wanted: Wanted) -> str:
    """The text with a line break at its end, which every line of a text file has."""
    text = str(wanted.value["content"])
    return text if text.endswith("\n") or not text else f"{text}\n"


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    stat = facts.stats.get(wanted.key)
    if stat is None and wanted.key not in facts.files:
        return Finding(wanted, "not there", "not there", "differs")
    if stat is not None and not stat.kind.startswith("regular"):
        remedy = f"{wanted.key} is a {stat.kind}: name the file itself, or move it away"
        return Finding(wanted, stat.kind, stat.kind, "advice", remedy)
    if wanted.key in facts.closed:
        return Finding(wanted, "-", "-", "unknown", "only root may read it")
    same = facts.text(wanted.key) == content(wanted)
    words = ["as wanted" if same else "other text"]
    if _mode(wanted, facts) is False and stat is not None:
        words.append(f"mode {stat.mode}")
    state = ", ".join(words)
    return Finding(wanted, state, state, "ok" if state == "as wanted" else "differs")


def _mode(wanted: Wanted, facts: Facts) -> bool | None:
    """Whether a file that is there has the mode; None where it is not there."""
    stat = facts.stats.get(wanted.key)
    return None if stat is None else int(stat.mode, 8) == int(wanted.value["mode"], 8)


def _chmod(wanted: Wanted, facts: Facts) -> Change:
    old, new = facts.stats[wanted.key].mode, str(wanted.value["mode"])
    return Change(
        (wanted.name,),
        f"mode {old} -> {new}",
        (Run(("chmod", new, "--", wanted.key)),),
        (Run(("chmod", f"0{old}", "--", wanted.key)),),
        cuts=wanted.key.startswith(CUTTING),
    )


def _after(wanted: Wanted) -> tuple[str, ...]:
    return tuple(wanted.value["after"])
