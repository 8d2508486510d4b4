"""Several kinds as one run: what is asked, in which order it is done, how it is undone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from inferfleet.hostprep.facts import Facts, Look, Stat
from inferfleet.hostprep.judge import do_steps, judge, look_for
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.kernel import sysctl, sysfs
from inferfleet.hostprep.kinds.kernel.sysctl import Sysctl
from inferfleet.hostprep.kinds.kernel.sysfs import Sysfs
from inferfleet.hostprep.kinds.system.files import Files
from inferfleet.hostprep.registry import ENTRIES, left_behind, load_kinds, signs
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Kind, Verdict, Wanted
from inferfleet.hostprep.steps import PutFile, Restore, Run, Write

WISH = Wanted("odd", "key", 1)


@dataclass
class Given:
    """A kind with a ready answer."""

    answer: Judgement
    asks: Look = Look()  # noqa: RUF009
    lines: tuple[str, ...] = ()

    def look(self, ground: Ground) -> Look:
        return self.asks

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        return self.answer

    def bootlines(self, ground: Ground, facts: Facts) -> tuple[str, ...]:
        return self.lines


def change(name: str, **more: bool) -> Change:
    return Change((name,), f"0 -> {name}", (Run(("do", name)),), (Run(("undo", name)),), **more)  # type: ignore[arg-type]


RELOAD, UPDATE = ("reload",), ("update", "it")
ONE: dict[str, Kind] = {
    "first": Given(Judgement(
        (), (PutFile("/etc/a", "a\n", after=RELOAD), PutFile("/etc/b", None, after=UPDATE)),
        (change("x"), change("y")),
    )),
    "second": Given(Judgement((), (PutFile("/etc/c", "c\n", after=RELOAD),), (change("z"),))),
}  # fmt: skip
FACTS = Facts({"/etc/b": "old\n"})


def test_files_then_what_follows_them_once_then_changes() -> None:
    found = judge(Ground(), FACTS, ONE)
    assert do_steps(found.files, found.changes) == [
        ("/etc/a", [PutFile("/etc/a", "a\n", after=RELOAD)]),
        ("/etc/b", [PutFile("/etc/b", None, after=UPDATE)]),
        ("/etc/c", [PutFile("/etc/c", "c\n", after=RELOAD)]),
        ("reload", [Run(RELOAD)]),
        ("update it", [Run(UPDATE)]),
        ("x: 0 -> x", [Run(("do", "x"))]),
        ("y: 0 -> y", [Run(("do", "y"))]),
        ("z: 0 -> z", [Run(("do", "z"))]),
    ]
    assert found.old == {"/etc/a": None, "/etc/b": "old\n", "/etc/c": None}


def test_undo_is_changes_backwards_then_files_then_what_follows_them() -> None:
    assert judge(Ground(), FACTS, ONE).undo == (
        Run(("undo", "z")),
        Run(("undo", "y")),
        Run(("undo", "x")),
        Restore("/etc/c"),
        Restore("/etc/b"),
        Restore("/etc/a"),
        Run(RELOAD),
        Run(UPDATE),
    )


@pytest.mark.parametrize(
    ("afters", "expected"),
    [
        ([("reload", True)], [boot.RELOAD, ("reload",)]),
        # Whoever asks for it and in whatever way: once, and before what needs it.
        ([("x", True), (boot.RELOAD, False), ("y", True)], [boot.RELOAD, ("x",), ("y",)]),
        ([("x", False), (boot.RELOAD, False)], [boot.RELOAD, ("x",)]),
        # systemd that starts anew has read everything.
        ([(boot.RELOAD, False), ("x", True), (boot.REEXEC, False)], [boot.REEXEC, ("x",)]),
        ([("x", False)], [("x",)]),
    ],
)
def test_systemd_reads_its_units_once(
    afters: list[tuple[str | tuple[str, ...], bool]], expected: list[tuple[str, ...]]
) -> None:
    files = [
        PutFile(
            f"/etc/{i}", "x\n", after=(after,) if isinstance(after, str) else after, reload=anew
        )
        for i, (after, anew) in enumerate(afters)
    ]
    found = judge(Ground(), Facts(), {"k": Given(Judgement((), tuple(files)))})
    done = [steps for _, steps in do_steps(found.files, found.changes)]
    assert done[len(files) :] == [[Run(argv)] for argv in expected]
    assert found.undo[len(files) :] == tuple(map(Run, expected))


def test_files_that_are_as_wanted_are_left_out_with_what_follows_them() -> None:
    facts = Facts({"/etc/a": "a\n", "/etc/c": "c\n"})
    found = judge(Ground(), facts, ONE)
    assert found.files == ()
    assert [c.settings for c in found.changes] == [("x",), ("y",), ("z",)]
    assert do_steps(found.files, found.changes)[0][0] == "x: 0 -> x"


def test_an_empty_file_is_not_an_absent_one() -> None:
    kinds: dict[str, Kind] = {"k": Given(Judgement((), (PutFile("/etc/a", ""),)))}
    assert judge(Ground(), Facts(), kinds).files == (PutFile("/etc/a", ""),)
    assert judge(Ground(), Facts({"/etc/a": ""}), kinds).files == ()


def test_a_closed_file_is_written() -> None:
    facts = Facts(closed=frozenset(["/etc/a", "/etc/b", "/etc/c"]))
    assert [file.path for file in judge(Ground(), facts, ONE).files] == [
        "/etc/a", "/etc/b", "/etc/c"
    ]  # fmt: skip


def test_what_a_file_says_of_itself_is_said_of_its_change() -> None:
    file = PutFile("/etc/a", "a\n", reboot="read at boot", cuts=True)
    (made,) = judge(Ground(), Facts(), {"k": Given(Judgement((), (file,)))}).changes
    assert made == Change(("/etc/a",), "written", (), (), "read at boot", True)
    gone = PutFile("/etc/b", None)
    (made,) = judge(Ground(), FACTS, {"k": Given(Judgement((), (gone,)))}).changes
    assert made.text == "removed"


def test_a_verdict_alone_is_wrong_or_not() -> None:
    wrong: dict[Verdict, bool] = {
        "ok": False, "differs": True, "pending": True, "overridden": True, "absent": True,
        "unsupported": False, "unknown": False, "advice": True,
    }  # fmt: skip
    for verdict, answer in wrong.items():
        kinds: dict[str, Kind] = {"k": Given(Judgement((Finding(WISH, "0", "-", verdict),)))}
        assert judge(Ground(), Facts(), kinds).wrong is answer


def test_boot_lines_of_all_kinds_are_one_script() -> None:
    kinds: dict[str, Kind] = {
        "b": Given(Judgement(()), lines=("try b",)),
        "a": Given(Judgement(()), lines=("try a1", "try a2")),
    }
    found = judge(Ground(), Facts(), kinds)
    script, unit = found.files
    assert (script.path, unit.path) == (boot.SCRIPT, boot.UNIT_FILE)
    assert (script.content or "").endswith("try b\ntry a1\ntry a2\nexit $failed\n")
    assert found.changes[-1].settings == (boot.UNIT,)
    # The unit's link goes before the files it points to.
    assert found.undo[0] == Run(("rm", "-f", boot.WANTS))


def test_the_look_asks_for_everything_and_the_stats_of_our_files() -> None:
    asks = Look(("/etc/a", "/proc/x", "/etc/d/*.conf"), {"p": ("prog",)}, ("/srv",))
    found = look_for(Ground(state="/st"), {"k": Given(Judgement(()), asks)})
    assert found.paths[:3] == asks.paths
    assert {"/st/*/record.json", "/st/journal", "/st/undone", "/proc/modules"} < set(found.paths)
    assert found.probes == asks.probes
    assert {"/srv", "/etc/a", boot.SCRIPT} < set(found.stats)
    assert not {"/proc/x", "/etc/d/*.conf"} & set(found.stats)


def test_settings_that_are_dropped_take_our_files_away() -> None:
    left = {sysctl.OURS: "a = 1\n", sysfs.OURS: "w /sys/a - - - - 1\n"}
    kinds: dict[str, Kind] = {"sysctl": Sysctl(), "sysfs": Sysfs()}
    found = judge(Ground(), Facts(left), kinds)
    assert [(file.path, file.content) for file in found.files] == [
        (sysctl.OURS, None), (sysfs.OURS, None)
    ]  # fmt: skip
    assert found.wrong


def test_all_kinds_leave_a_bare_machine_alone_when_nothing_is_wanted() -> None:
    found = judge(Ground(), Facts(), load_kinds(ENTRIES))
    assert found.findings == ()
    assert found.changes == ()
    assert not found.wrong


def test_all_kinds_together_can_be_asked() -> None:
    asked = look_for(Ground(), load_kinds(ENTRIES))
    assert "/proc/modules" in asked.paths
    assert len(set(asked.paths)) == len(asked.paths)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_a_kind_has_left_is_known_by_its_signs(name: str) -> None:
    """Files that a kind takes away when nothing is wanted are among its signs, or beside them."""
    kind, own = load_kinds([name])[name], ENTRIES[name].signs
    assert set(own) <= set(kind.look(Ground()).paths)
    removed = [file.path for file in kind.judge(Ground(), Facts()).files if file.content is None]
    assert bool(removed) == bool(own) or name == "cmdline"
    for path in own:
        assert left_behind([], Facts({path: "x\n"})) == {name}
        assert left_behind([name], Facts({path: "x\n"})) == set()
        assert path in signs([]).paths
        assert path not in signs([name]).paths


def test_kinds_keep_the_order_of_changes() -> None:
    assert list(load_kinds({"cpu", "modules", "sysctl"})) == ["modules", "sysctl", "cpu"]
    assert list(load_kinds(ENTRIES)) == list(ENTRIES)


@pytest.mark.parametrize(
    ("path", "cuts"),
    [
        ("/etc/ssh/sshd_config.d/x.conf", True),
        ("/etc/netplan/01.yaml", True),
        ("/etc/nftables.conf", True),
        ("/etc/default/grub.d/x.cfg", True),
        ("/etc/sudoers.d/x", True),
        ("/etc/default/irqbalance", False),
        ("/etc/motd", False),
    ],
)
def test_a_file_that_can_lose_the_machine(path: str, cuts: bool) -> None:
    value = {"content": "x\n", "mode": "0644", "after": []}
    ground = Ground((Wanted("files", path, value),))
    (new,) = judge(ground, Facts(), {"files": Files()}).changes
    assert new.cuts is cuts
    stat = Stat("regular file", "600", "root", "root", "1")
    facts = Facts({path: "x\n"}, stats={path: stat})
    (mode,) = judge(ground, facts, {"files": Files()}).changes
    assert (mode.text, mode.cuts) == ("mode 600 -> 0644", cuts)


def test_live_values_are_written_in_the_order_of_kinds_and_keys() -> None:
    wanted = [
        Wanted("sysfs", "/sys/a", 1), Wanted("sysctl", "z.a", 2), Wanted("sysctl", "b.c", 1)
    ]  # fmt: skip
    facts = Facts({"/sys/a": "0\n", "/proc/sys/z/a": "0\n", "/proc/sys/b/c": "0\n"})
    found = judge(Ground(tuple(wanted)), facts, {"sysctl": Sysctl(), "sysfs": Sysfs()})
    live = [step for c in found.changes for step in c.do]
    assert live == [
        Write("/proc/sys/b/c", "1"), Write("/proc/sys/z/a", "2"), Write("/sys/a", "1")
    ]  # fmt: skip
