"""Resource limits: of logins by limits.d, of services that set none by systemd's own defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.boot import REEXEC
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile

LOGINS = "/etc/security/limits.d/90-inferbase.conf"
SERVICES = "/etc/systemd/system.conf.d/90-inferbase.conf"
PROBE = "limits"
# systemd-system.conf(5): the main file first, then the drop-ins of all folders by name.
_MAIN = "/etc/systemd/system.conf"
_FOLDERS = ("/etc/systemd/system.conf.d", "/run/systemd/system.conf.d",
            "/usr/local/lib/systemd/system.conf.d", "/usr/lib/systemd/system.conf.d")  # fmt: skip
_LIMITS_D = "/etc/security/limits.d/*.conf"
_NAMES = {"memlock": "MEMLOCK", "nofile": "NOFILE"}
# `man 5 systemd.exec`: limits without a unit are bytes or plain numbers.
_ENDLESS = "infinity"


class Limits:
    """The kind `limits`. Services that run keep the limits that they were started with."""

    def look(self, ground: Ground) -> Look:
        if not ground.of("limits"):
            return Look((LOGINS, SERVICES))
        names = [f"DefaultLimit{name}{soft}" for name in _NAMES.values() for soft in ("", "Soft")]
        return Look(
            (LOGINS, SERVICES, _MAIN, *(f"{folder}/*.conf" for folder in _FOLDERS), _LIMITS_D),
            {PROBE: ("systemctl", "show", "--no-pager", f"--property={','.join(names)}")},
        )

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("limits")
        known = _known(facts)
        findings = tuple(_finding(wanted, facts, known) for wanted in settings)
        files = (
            PutFile(LOGINS, _logins(settings, known)),
            # systemd reads its own configuration only when it starts anew; units keep running.
            PutFile(SERVICES, _services(settings, known), after=REEXEC if known else ()),
        )
        return Judgement(findings, files)


def _finding(wanted: Wanted, facts: Facts, known: dict[str, str]) -> Finding:
    name = f"DefaultLimit{_NAMES[wanted.key]}"
    live = known.get(f"{name}Soft") or known.get(name) or "-"
    lines = _login_lines(wanted, known)
    kept = set(lines) <= set((facts.text(LOGINS) or "").splitlines())
    kept = kept and _service_line(wanted, known) in (facts.text(SERVICES) or "").splitlines()
    persisted = str(wanted.value) if kept else "-"
    if later := _later(wanted, facts):
        remedy = f"{later} sets it later: change or remove that line"
        return Finding(wanted, live, persisted, "overridden", remedy)
    enough = live != "-" and _at_least(live, str(wanted.value))
    if not kept:
        return Finding(wanted, live, persisted, "differs")
    if live == "-":
        return Finding(wanted, live, persisted, "unknown", "systemd does not tell its defaults")
    remedy = "" if enough else "systemd does not use it yet: run systemctl daemon-reexec"
    return Finding(wanted, live, persisted, "ok" if enough else "pending", remedy)


def _later(wanted: Wanted, facts: Facts) -> str:
    """The file that sets the same limit after ours, "" for none."""
    name = f"DefaultLimit{_NAMES[wanted.key]}"
    ours = SERVICES.rpartition("/")[2]
    for folder in _FOLDERS:
        for path, text in facts.matching(f"{folder}/*.conf").items():
            setting = re.search(rf"^\s*{name}(Soft)?\s*=", text, re.MULTILINE)
            if path.rpartition("/")[2] > ours and setting:
                return path
    for path, text in facts.matching(_LIMITS_D).items():
        line = re.search(rf"^\s*(\*|root)\s+\S+\s+{wanted.key}\s", text, re.MULTILINE)
        if path > LOGINS and line:
            return path
    return ""


def _known(facts: Facts) -> dict[str, str]:
    answer = facts.probe(PROBE)
    lines = answer.out.splitlines() if answer.good else []
    return {name: value for name, equals, value in (one.partition("=") for one in lines) if equals}


def _hard(wanted: Wanted, known: dict[str, str]) -> str:
    """No lower than it is: a program may raise its own limit up to there."""
    value = str(wanted.value)
    now = known.get(f"DefaultLimit{_NAMES[wanted.key]}") or value
    return now if _at_least(now, value) else value


def _login_lines(wanted: Wanted, known: dict[str, str]) -> list[str]:
    values = {"soft": str(wanted.value), "hard": _hard(wanted, known)}
    return [
        f"{who} {kind} {wanted.key} {_login_value(wanted.key, value)}"
        for who in ("*", "root")
        for kind, value in values.items()
    ]


def _login_value(key: str, value: str) -> str:
    """memlock counts in KiB there."""
    if value == _ENDLESS:
        return "unlimited"
    return str(-(-int(value) // 1024)) if key == "memlock" else value


def _service_line(wanted: Wanted, known: dict[str, str]) -> str:
    return f"DefaultLimit{_NAMES[wanted.key]}={wanted.value}:{_hard(wanted, known)}"


def _logins(settings: Sequence[Wanted], known: dict[str, str]) -> str | None:
    return _text((line for w in settings for line in _login_lines(w, known)), "")


def _services(settings: Sequence[Wanted], known: dict[str, str]) -> str | None:
    return _text((_service_line(wanted, known) for wanted in settings), "[Manager]\n")


def _text(lines: Iterator[str], head: str) -> str | None:
    body = "".join(f"{line}\n" for line in lines)
    return HEAD + head + body if body else None


def _at_least(value: str, other: str) -> bool:
    if _ENDLESS in (value, other):
        return value == _ENDLESS
    return value.isdigit() and int(value) >= int(other)
