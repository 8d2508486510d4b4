"""Models in huge pages: what pinning and unpinning would do, and what stands against them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_cases import make_release

from inferfleet.errors import LOCKED, FleetError
from inferfleet.hosts.host import Result
from inferfleet.hosts.local import LocalHost
from inferfleet.models.observe import PAGE, complete
from inferfleet.models.stamp import Stamp, StampFile
from inferfleet.operations.pages import (
    Kept,
    Pages,
    Pinned,
    parse_pinned,
    pin_plan,
    refusal,
    unpin_plan,
)
from inferfleet.remote import program
from inferfleet.run.session import Session

REAL = "/srv/models/m.gguf"
FACTS = {
    "user": "root", "root": "yes", "real": REAL, "kind": "file", "nr_hugepages": "4",
    "free_hugepages": "3", "resv_hugepages": "1", "MemTotal": str(64 << 20),
    "MemAvailable": str(40 << 20), "copier": "perl",
}  # fmt: skip
KEPT = Kept(REAL, 10 * PAGE - 5, "1700000000", 8)


def found(kept: Kept | None = None, bound: bool = False, size: int = 10 * PAGE - 5,
          **facts: Any) -> Pinned:  # fmt: skip
    return Pinned({**FACTS, **facts}, size, bound, kept)


def test_plan_and_its_twin() -> None:
    # Two of the three free pages are nobody's, so eight are missing.
    assert pin_plan("box", "a", found()) == [
        "vm.nr_hugepages: 4 -> 12 (16 MiB more)",
        f"copy {REAL} into 10 huge pages (20 MiB)",
        f"bind the copy over {REAL}",
    ]
    assert pin_plan("box", "a", found(KEPT, bound=True)) == []
    assert unpin_plan(found()) == []
    assert unpin_plan(found(KEPT, True, nr_hugepages="12", mounted="yes")) == [
        f"take the copy away from {REAL}, which lies on its disk unchanged",
        "vm.nr_hugepages: 12 -> 4 (16 MiB given back)",
    ]
    # A static pool that is large enough is used, and not made larger.
    assert "nr_hugepages" not in pin_plan("box", "a", found(free_hugepages="11"))[0]


@pytest.mark.parametrize(
    "state",
    [found(KEPT), found(replace(KEPT, real="/srv/models/old.gguf"), bound=True)],
    ids=["after a start of the machine", "the model is another now"],
)
def test_what_is_pinned_no_more_is_pinned_again(state: Pinned) -> None:
    assert pin_plan("box", "a", state)[-1] == f"bind the copy over {REAL}"


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"root": "no", "user": "ops"}, "need root, and this is ops"),
        ({"kind": "directory"}, "is the directory /srv/models/m.gguf"),
        ({"kind": ""}, "is not there"),
        ({"real": "/srv/my models/m.gguf"}, "white space"),
        ({"copier": "none"}, "neither perl nor python3"),
        ({"MemAvailable": str(3 << 20)}, "16 MiB more are needed"),
    ],
)
def test_refusals(facts: dict[str, Any], what: str) -> None:
    with pytest.raises(FleetError, match=what) as caught:
        pin_plan("box", "a", found(**facts))
    assert caught.value.hint
    without = {key: value for key, value in FACTS.items() if key != "nr_hugepages"}
    with pytest.raises(FleetError, match="no huge pages of 2 MiB"):
        pin_plan("box", "a", Pinned(without, 1, False, None))


def test_records_of_the_machine() -> None:
    text = "".join(f"fact\t{key}\t{value}\n" for key, value in FACTS.items())
    text += f"fact\tbound\tyes\nstat\t{10 * PAGE}\t1700000000\n"
    text += f"kept\t{REAL}\t{KEPT.size}\t1700000000\t8\tboot\n"
    assert parse_pinned(f"{text}end\n") == Pinned({**FACTS, "bound": "yes"}, 10 * PAGE, True, KEPT)
    assert parse_pinned("kept\todd\nkept\ta\tb\tc\td\nend\n").kept is None
    with pytest.raises(FleetError, match="cut short"):
        parse_pinned(text)


@pytest.mark.parametrize(
    ("fields", "what", "code"),
    [
        (["short", "3 8"], "3 of 8 huge pages could be had, 10 MiB are missing", 1),
        (["moved", "the size of m"], "the size of m has changed", 1),
        (["locked", "7|1|ann@x|t|models.pin"], "locked by", LOCKED),
        (["io", "disk"], "box: disk", 1),
        ([], "box: ", 1),
    ],
)
def test_what_the_machine_refuses(fields: list[str], what: str, code: int) -> None:
    error = refusal("box", fields)
    assert what in error.what
    assert error.code == code
    assert error.hint


def test_a_stamped_model_may_be_as_long_as_its_pages() -> None:
    stamp = Stamp("s", "", "store", (StampFile("m.gguf", PAGE + 1, "0"),), "t")
    assert complete(stamp, "store", {"m.gguf": PAGE + 1})
    assert complete(stamp, "store", {"m.gguf": 2 * PAGE})
    assert not complete(stamp, "store", {"m.gguf": PAGE})
    assert not complete(stamp, "store", {"m.gguf": 3 * PAGE})


class Recorded(LocalHost):
    """This machine; keeps what it was asked."""

    script = ""

    def run(self, script: str, **options: Any) -> Result:
        self.script = script
        return super().run(script, **options)


def test_a_look_changes_nothing_and_finds_the_file(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(bytes(PAGE + 1))
    link = tmp_path / "link"
    link.symlink_to(model)
    release = make_release({"models": ["a"]})
    need = replace(release.models[0], path=str(link))
    session = Session(Recorded("box"), replace(release, models=(need,)), False, {}, {})
    seen = Pages(session, "a").look()
    assert (seen.facts["real"], seen.size, seen.pages) == (str(model), PAGE + 1, 2)
    assert (seen.bound, seen.kept, seen.whole) == (False, None, False)
    assert seen.number("MemTotal") > 0
    with pytest.raises(FleetError, match="b has no model file"):
        Pages(session, "b")


def sh(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("tool", ["perl", "python3"])
def test_the_copy_is_the_file(tool: str, tmp_path: Path) -> None:
    """The copiers fill a mapping; a plain file takes one just as a hugetlbfs does."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 20000 + b"end")
    (tmp_path / "pages").mkdir()
    if tool == "perl":  # which does not make the file longer: hugetlbfs does when it is mapped
        (tmp_path / "pages" / "model").write_bytes(b"")
    script = program("pages", key="k", path=str(source)).replace(
        "folder=${folder:-/run/inferbase/pages}/$key", f"folder={tmp_path}/pages"
    )
    size = source.stat().st_size
    grown = f'"$folder/model" && truncate -s {2 * (PAGE * 2)} "$folder/model"'
    script += f"copier() {{ echo {tool}; }}\nreal={source} size={size}\n"
    if tool == "perl":
        script = script.replace('open(my $out, "+>", $to)', 'open(my $out, "+<", $to)')
        script += f": >{grown}\n"
    done = sh(f"{script}copy")
    assert (done.returncode, done.stderr) == (0, "")
    copy = (tmp_path / "pages" / "model").read_bytes()
    assert copy[:size] == source.read_bytes()
    assert set(copy[size:]) <= {0}
    short = script.replace(f"size={size}", f"size={size + PAGE // 2}")
    failed = sh(f"{short}copy")
    assert failed.returncode != 0
    assert "became shorter" in failed.stderr
