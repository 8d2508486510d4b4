"""Settings below /proc/sys: (wanted, found) to verdict, file, live values and their undo."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hostprep_table import after, back, ground, one, seen
from tools import needs

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds.kernel.sysctl import OURS, Sysctl, assignments, effective, proc_path
from inferfleet.hostprep.setting import Ground, Judgement, Wanted
from inferfleet.hostprep.steps import Write

SWAPPINESS = "/proc/sys/vm/swappiness"
FILE = """\
# Made by inferbase; `invoke hostprep.rollback` takes it away.
# why vm.swappiness
vm.swappiness = 10
"""


def judge(settings: Mapping[str, object], files: Mapping[str, str], **more: object) -> Judgement:
    return Sysctl().judge(ground("sysctl", dict(settings)), Facts(files, **more))  # type: ignore[arg-type]


def swappiness(live: str) -> Judgement:
    return judge({"vm.swappiness": 10}, {SWAPPINESS: f"{live}\n"})


def test_differs_and_is_changed_and_persisted() -> None:
    found = swappiness("60")
    assert seen(one(found)) == ("60", "-", "differs")
    assert [(f.path, f.content, f.mode) for f in found.files] == [(OURS, FILE, 0o644)]
    (change,) = found.changes
    assert change.settings == ("sysctl.vm.swappiness",)
    assert change.text == "60 -> 10"
    assert change.do == (Write(SWAPPINESS, "10"),)
    assert change.undo == (Write(SWAPPINESS, "60"),)
    assert not change.cuts
    assert change.reboot == ""


def test_nothing_changes_what_is_as_wanted() -> None:
    files = {SWAPPINESS: "10\n", OURS: FILE}
    found = judge({"vm.swappiness": 10}, files)
    assert seen(one(found)) == ("10", "10", "ok")
    assert found.changes == ()
    assert found.files[0].content == FILE


@pytest.mark.parametrize(
    ("live", "value"),
    [("60", 10), ("1\t2\t3", "4 5 6"), ("", "core.%p"), ("|/usr/bin/crash %p", "core")],
)
def test_applied_it_is_ok_and_undone_it_is_as_before(live: str, value: object) -> None:
    wanted = ground("sysctl", {"kernel.key": value})
    before = Facts({"/proc/sys/kernel/key": f"{live}\n", "/etc/sysctl.d/1.conf": "a.b=1\n"})
    found = Sysctl().judge(wanted, before)
    changed = after(before, found)
    assert one(Sysctl().judge(wanted, changed)).verdict == "ok"
    assert Sysctl().judge(wanted, changed).changes == ()
    restored = back(changed, found, before)
    assert restored.files.keys() == before.files.keys()
    assert restored.files["/proc/sys/kernel/key"].split() == live.split()


def test_only_persisted_is_missing() -> None:
    found = swappiness("10")
    assert seen(one(found)) == ("10", "-", "differs")
    assert found.changes == ()
    assert found.files[0].content == FILE


def test_another_file_persists_it_already() -> None:
    path = "/etc/sysctl.d/10-site.conf"
    found = judge({"vm.swappiness": 10}, {SWAPPINESS: "10\n", path: "vm.swappiness=10\n"})
    assert seen(one(found)) == ("10", "10", "ok")


@pytest.mark.parametrize(
    ("path", "wins"),
    [
        ("/etc/sysctl.d/10-first.conf", False),
        ("/etc/sysctl.d/89-almost.conf", False),
        ("/etc/sysctl.d/99-sysctl.conf", True),
        ("/run/sysctl.d/95-run.conf", True),
        ("/usr/lib/sysctl.d/99-vendor.conf", True),
        ("/usr/lib/sysctl.d/50-vendor.conf", False),
        ("/usr/local/lib/sysctl.d/99-local.conf", True),
        ("/etc/sysctl.conf", True),
        ("/etc/sysctl.d/99-other.txt", False),
    ],
)
def test_a_later_file_overrides(path: str, wins: bool) -> None:
    files = {SWAPPINESS: "60\n", path: "# ours\n\nvm.swappiness = 60\n"}
    found = judge({"vm.swappiness": 10}, files)
    finding = one(found)
    assert finding.verdict == ("overridden" if wins else "differs")
    assert (f"{path}:3 sets 60 later" in finding.remedy) is wins
    # It is applied all the same: the machine has it until the next start.
    assert len(found.changes) == 1
    assert one(Sysctl().judge(ground("sysctl", {"vm.swappiness": 10}),
                              after(Facts(files), found))).verdict == (
        "overridden" if wins else "ok")  # fmt: skip


@pytest.mark.parametrize("content", ["", "# nothing\n", "vm.swappiness = 10\n"])
def test_a_file_in_etc_masks_one_of_the_same_name(content: str) -> None:
    """A link to /dev/null reads as an empty file and masks, too."""
    files = {
        SWAPPINESS: "10\n",
        "/usr/lib/sysctl.d/99-vendor.conf": "vm.swappiness = 60\n",
        "/etc/sysctl.d/99-vendor.conf": content,
        OURS: FILE,
    }
    assert one(judge({"vm.swappiness": 10}, files)).verdict == "ok"


@pytest.mark.parametrize(
    "line",
    [
        "vm.swappiness=60",
        "  vm.swappiness\t=  60  ",
        "-vm.swappiness = 60",
        "- vm.swappiness = 60",
        "vm/swappiness = 60",
        "vm.* = 60",
    ],
)
def test_spellings_of_a_key(line: str) -> None:
    files = {SWAPPINESS: "10\n", "/etc/sysctl.d/99-x.conf": f"{line}\n", OURS: ""}
    expected = {"overridden": "60"} if "*" not in line else {"differs": "60"}
    finding = one(judge({"vm.swappiness": 10}, files))
    assert {finding.verdict: finding.persisted} == expected


@pytest.mark.parametrize("line", ["#vm.swappiness=60", ";vm.swappiness=60", "vm.swappiness 60",
                                  "-vm.swappiness", "= 60", "vm.swappines=60"])  # fmt: skip
def test_lines_that_set_nothing(line: str) -> None:
    files = {SWAPPINESS: "10\n", "/etc/sysctl.d/99-x.conf": f"{line}\n", OURS: FILE}
    assert one(judge({"vm.swappiness": 10}, files)).verdict == "ok"


def test_keys_with_a_dot_in_a_name() -> None:
    path = "/etc/sysctl.d/x.conf"
    (found,) = assignments(path, "net/ipv4/conf/eth0.1/forwarding = 1\n")
    assert found.key == "net.ipv4.conf.eth0/1.forwarding"
    (found,) = assignments(path, "net.ipv4.conf.eth0/1.forwarding = 1\n")
    assert found.key == "net.ipv4.conf.eth0/1.forwarding"
    assert proc_path("net.ipv4.conf.eth0/1.forwarding") == (
        "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
    )


def test_a_named_key_wins_over_a_later_pattern() -> None:
    """sysctl.d(5): a key that is named is left out of all patterns."""
    key, path = "net.ipv4.conf.all.rp_filter", "/proc/sys/net/ipv4/conf/all/rp_filter"
    later = {"/etc/sysctl.d/99-x.conf": "net.ipv4.conf.*.rp_filter = 2\n"}
    found = judge({key: 1}, {path: "2\n", **later})
    assert one(found).verdict == "differs"
    assert one(found).persisted == "2"
    assert found.changes[0].cuts


PATTERN = "net.ipv4.conf.*.rp_filter"
EACH = {name: f"/proc/sys/net/ipv4/conf/{name}/rp_filter" for name in ("all", "eth0", "lo")}


def test_a_pattern_is_written_where_it_differs() -> None:
    files = {EACH["all"]: "0\n", EACH["eth0"]: "2\n", EACH["lo"]: "1\n"}
    found = judge({PATTERN: 1}, files)
    assert seen(one(found)) == ("0, 2, 1", "-", "differs")
    (change,) = found.changes
    assert change.text == "0, 2 -> 1"
    assert change.do == (Write(EACH["all"], "1"), Write(EACH["eth0"], "1"))
    assert change.undo == (Write(EACH["all"], "0"), Write(EACH["eth0"], "2"))
    assert change.cuts
    assert f"{PATTERN} = 1\n" in (found.files[0].content or "")
    changed = after(Facts(files), found)
    assert one(Sysctl().judge(ground("sysctl", {PATTERN: 1}), changed)).verdict == "ok"


def test_a_key_that_another_file_names_is_not_in_our_pattern() -> None:
    files = {EACH["all"]: "1\n", EACH["eth0"]: "1\n"}
    early = {"/etc/sysctl.d/10-x.conf": "net.ipv4.conf.eth0.rp_filter = 0\n"}
    finding = one(judge({PATTERN: 1}, {**files, **early}))
    assert finding.verdict == "overridden"
    assert "/etc/sysctl.d/10-x.conf:1 sets 0" in finding.remedy
    same = {"/etc/sysctl.d/10-x.conf": "net.ipv4.conf.eth0.rp_filter = 1\n"}
    assert one(judge({PATTERN: 1}, {**files, **same})).verdict == "differs"


def test_a_key_of_ours_beside_a_pattern_of_ours() -> None:
    wanted = {PATTERN: 1, "net.ipv4.conf.eth0.rp_filter": 2}
    found = judge(wanted, {EACH["eth0"]: "0\n", EACH["all"]: "0\n"})
    assert [c.do for c in found.changes] == [
        (Write(EACH["all"], "1"),),
        (Write(EACH["eth0"], "2"),),
    ]
    changed = after(Facts({EACH["eth0"]: "0\n", EACH["all"]: "0\n"}), found)
    settled = Sysctl().judge(ground("sysctl", wanted), changed)
    assert [finding.verdict for finding in settled.findings] == ["ok", "ok"]
    assert settled.changes == ()


def test_tabs_and_blanks_are_the_same() -> None:
    key, path = "net.ipv4.tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"
    text = f"{key} = 4096  131072\t6291456\n"
    found = judge({key: "4096 131072 6291456"}, {path: "4096\t131072\t6291456\n",
                                                 "/etc/sysctl.d/5.conf": text})  # fmt: skip
    assert seen(one(found)) == ("4096 131072 6291456", "4096 131072 6291456", "ok")
    assert found.changes == ()


def test_an_absent_key_changes_nothing() -> None:
    found = judge({"vm.swapiness": 10}, {SWAPPINESS: "60\n"})
    assert seen(one(found)) == ("-", "-", "absent")
    assert "check its spelling" in one(found).remedy
    assert found.changes == ()
    assert found.files[0].content is None


def test_an_absent_key_beside_one_that_is_there() -> None:
    found = judge({"vm.swapiness": 10, "vm.swappiness": 10}, {SWAPPINESS: "60\n"})
    assert [f.verdict for f in found.findings] == ["absent", "differs"]
    assert found.files[0].content == FILE


def test_a_closed_key_is_unknown() -> None:
    found = judge({"vm.swappiness": 10}, {}, closed=frozenset([SWAPPINESS]))
    assert seen(one(found)) == ("-", "-", "unknown")
    assert one(found).remedy == "only root may read it"
    assert found.changes == ()


MODULE = ("net.bridge.bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables")


@pytest.mark.parametrize("module", ["br_netfilter", "br-netfilter"])
def test_a_key_that_a_module_of_the_same_run_brings(module: str) -> None:
    wanted = Ground((Wanted("sysctl", MODULE[0], 1), Wanted("modules", module, "loaded")))
    before = Facts({"/proc/modules": "ext4 1 0 - Live 0x0\n"})
    found = Sysctl().judge(wanted, before)
    assert one(found).verdict == "differs"
    (change,) = found.changes
    assert change.do == (Write(MODULE[1], "1"),)
    assert change.undo == ()  # the module takes it away again
    assert change.cuts
    assert f"{MODULE[0]} = 1\n" in (found.files[0].content or "")


def test_a_key_that_no_loaded_module_has() -> None:
    wanted = Ground((Wanted("sysctl", MODULE[0], 1), Wanted("modules", "br_netfilter", "loaded")))
    found = Sysctl().judge(wanted, Facts({"/proc/modules": "br_netfilter 32768 0 - Live 0x0\n"}))
    assert one(found).verdict == "absent"
    assert found.changes == ()


def test_nothing_wanted_takes_our_file_away() -> None:
    found = judge({}, {OURS: FILE})
    assert found.findings == ()
    assert [(file.path, file.content) for file in found.files] == [(OURS, None)]


def test_a_file_of_ours_holds_nothing_that_is_not_wanted_any_more() -> None:
    old = FILE + "# why vm.x\nvm.x = 1\n"
    found = judge({"vm.swappiness": 10}, {SWAPPINESS: "10\n", OURS: old})
    assert found.files[0].content == FILE
    assert one(found).verdict == "ok"


def test_look_asks_for_our_file_even_when_nothing_is_wanted() -> None:
    assert Sysctl().look(Ground()).paths == (OURS,)
    paths = Sysctl().look(ground("sysctl", {"vm.swappiness": 10, PATTERN: 1})).paths
    assert SWAPPINESS in paths
    assert "/proc/sys/net/ipv4/conf/*/rp_filter" in paths
    assert OURS in paths
    assert "/usr/lib/sysctl.d/*.conf" in paths


def test_effective_is_in_the_order_of_names() -> None:
    files = {
        "/etc/sysctl.conf": "a.a=6\n",
        "/usr/lib/sysctl.d/50-b.conf": "a.a=3\n",
        "/etc/sysctl.d/60-c.conf": "a.a=4\n",
        "/run/sysctl.d/10-a.conf": "a.a=1\na.b=2\n",
        "/etc/other.d/99.conf": "a.a=9\n",
    }
    assert [one.value for one in effective(Facts(files))] == ["1", "2", "3", "4", "6"]
    assert [one.value for one in effective(Facts(files), "a.a=5\n")] == list("123456")


@needs("sysctl")
def test_the_file_is_what_sysctl_reads(tmp_path: Path) -> None:
    """sysctl itself names each key and value as we meant them; it sets nothing."""
    keys = ("net.ipv4.ip_local_port_range", "vm.swappiness", "kernel.core_pattern")
    wanted = {key: " ".join(Path(proc_path(key)).read_text().split()) for key in keys}
    found = judge(wanted, {proc_path(key): f"{value}\n" for key, value in wanted.items()})
    path = tmp_path / "90-inferbase.conf"
    path.write_text(found.files[0].content or "")
    done = subprocess.run(
        ["sysctl", "--dry-run", "-p", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(line.split(" = ") for line in done.stdout.splitlines()) == wanted
