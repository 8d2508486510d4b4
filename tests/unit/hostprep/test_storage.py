"""The kind storage: owners and modes, the right disk, free space; and what status says of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from inferfleet.hostprep.facts import Answer, Facts, Stat
from inferfleet.hostprep.kinds.storage.storage import MOUNTS, SPACE, Storage
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.space import space_notes, space_script
from inferfleet.hostprep.steps import Run

GIB = 1 << 30
PATH = "/mnt/nvme/models"
ACCOUNTS = {
    "/etc/passwd": "root:x:0:0::/root:/bin/sh\nserve:x:900:900::/:/bin/false\n",
    "/etc/group": "root:x:0:\nmodels:x:901:\n",
    MOUNTS: "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:1 / /mnt/nvme rw - xfs /dev/nvme0n1 rw\n",
}


def ground(path: str = PATH, **value: Any) -> Ground:
    plain = {"owner": None, "group": None, "mode": None, "mount": False, "min-free": None}
    value = {key.replace("_", "-"): entry for key, entry in value.items()}
    return Ground((Wanted("storage", path, plain | value),))


def stat(owner: str = "root", group: str = "root", mode: str = "755", device: str = "2",
         kind: str = "directory") -> Stat:  # fmt: skip
    return Stat(kind, mode, owner, group, device)


def facts(found: Stat | None = None, disk: str = "2", space: str = "") -> Facts:
    stats = {"/": stat(device="1"), "/mnt": stat(device="1"), "/mnt/nvme": stat(device=disk)}
    stats |= {PATH: found} if found else {}
    probes = {SPACE: Answer(0, space)} if space else {}
    return Facts(ACCOUNTS, probes=probes, stats=stats)


def first(judged: Judgement) -> Finding:
    return judged.findings[0]


def argvs(steps: Any) -> list[tuple[str, ...]]:
    assert all(isinstance(step, Run) for step in steps)
    return [step.argv for step in steps if step.argv[0] != "sh"]


def only(judged: Judgement) -> Change:
    (change,) = judged.changes
    return change


ALL = {"owner": "serve", "group": "models", "mode": "0750", "mount": True}


def test_made_with_owner_and_mode() -> None:
    judged = Storage().judge(ground(**ALL), facts())
    assert first(judged).verdict == "differs"
    change = only(judged)
    assert argvs(change.do) == [
        ("mkdir", "-p", PATH), ("chown", "serve:models", PATH), ("chmod", "0750", PATH),
    ]  # fmt: skip
    assert argvs(change.undo) == [("rmdir", PATH)]


def test_nothing_to_do() -> None:
    judged = Storage().judge(ground(**ALL), facts(stat("serve", "models", "750")))
    assert [f.verdict for f in judged.findings] == ["ok"]
    assert judged.changes == ()
    assert judged.files == ()


def test_changed_and_back() -> None:
    judged = Storage().judge(ground(**ALL), facts(stat("root", "models", "777")))
    change = only(judged)
    assert change.text == "root:models -> serve:models, 777 -> 0750"
    assert argvs(change.do) == [("chown", "serve:models", PATH), ("chmod", "0750", PATH)]
    assert argvs(change.undo) == [("chown", "root:models", PATH), ("chmod", "777", PATH)]


@pytest.mark.parametrize("found", [None, stat("serve", "models", "750", device="1")])
def test_a_missing_mount_is_refused_and_nothing_made(found: Stat | None) -> None:
    judged = Storage().judge(ground(**ALL), facts(found, disk="1"))
    assert first(judged).verdict == "absent"
    assert "root disk" in first(judged).remedy
    assert judged.changes == ()
    # Without mount: the same directory is made where it is.
    assert Storage().judge(ground(mode="0750"), facts(disk="1")).changes or found


def test_a_subvolume_of_the_root_disk_is_the_root_disk() -> None:
    same = ACCOUNTS[MOUNTS].replace("/dev/nvme0n1", "/dev/sda1")
    seen = Facts({**ACCOUNTS, MOUNTS: same}, stats=facts().stats)
    assert first(Storage().judge(ground(**ALL), seen)).verdict == "absent"


def test_a_disk_that_goes_away_before_the_run_stops_it() -> None:
    guard = only(Storage().judge(ground(**ALL), facts())).do[0]
    assert isinstance(guard, Run)
    assert not guard.quiet
    on_root = (*guard.argv[:-1], "/")
    done = subprocess.run(on_root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "/ lies on the root disk\n")
    elsewhere = (*guard.argv[:-1], "/proc")
    assert subprocess.run(elsewhere, check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "verdict", "word"),
    [({"owner": "nobody2"}, "absent", "useradd"), ({"group": "nobody2"}, "absent", "groupadd")],
)
def test_accounts_that_are_not_there(value: dict[str, str], verdict: str, word: str) -> None:
    judged = Storage().judge(ground(**value), facts(stat()))
    assert first(judged).verdict == verdict
    assert word in first(judged).remedy
    assert judged.changes == ()
    # One that the directory has already is known from elsewhere, such as LDAP.
    known = Storage().judge(ground(**value), facts(stat("nobody2", "nobody2")))
    assert first(known).verdict == "ok"


def test_something_else_is_there() -> None:
    judged = Storage().judge(ground(mode="0755"), facts(stat(kind="symbolic link")))
    assert first(judged).verdict == "advice"
    assert judged.changes == ()


def test_what_cannot_be_told() -> None:
    assert first(Storage().judge(ground(mode="0755"), Facts())).verdict == "unknown"
    odd = ground("/mnt/my disk", mode="0755")
    assert Storage().look(odd).stats == ()
    assert first(Storage().judge(odd, Facts())).verdict == "unknown"


@pytest.mark.parametrize(
    ("least", "free", "verdict"),
    [
        (GIB, 262144, "ok"), (GIB, 262143, "advice"),
        ("10%", 104858, "ok"), ("10%", 104857, "advice"),
    ],
)  # fmt: skip
def test_free_space_has_its_own_finding(least: int | str, free: int, verdict: str) -> None:
    space = f"{PATH}\t4096\t1048576\t{free}"
    judged = Storage().judge(ground(mode="0755", min_free=least), facts(stat(), space=space))
    assert [f.verdict for f in judged.findings] == ["ok", verdict]
    assert judged.findings[1].wanted.name == f"storage.{PATH} min-free"
    assert Storage().look(ground(min_free=least)).probes[SPACE][-1] == PATH
    assert SPACE not in Storage().look(ground(mode="0755")).probes


def test_status_says_what_is_short_of_space(tmp_path: Path) -> None:
    full = ground(str(tmp_path), min_free=1 << 60)
    script = space_script(full)
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    (note,) = space_notes(full, out.splitlines())
    assert note.startswith(f"{tmp_path} has ")
    assert note.endswith("free, 1073741824.0 GiB should be")
    assert space_notes(ground(str(tmp_path), min_free=1), out.splitlines()) == []
    assert "cannot be read" in space_notes(full, [])[0]
    assert space_script(ground(mode="0755")) == ""
