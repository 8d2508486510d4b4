"""Who fetches for a site and who copies; what lies on a disk and what of it may go."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.prune import Removal, removals
from inferfleet.models.shelf import OnDisk, Shelf, parse_shelf, read_shelf
from inferfleet.models.sources.origin import Contents, WantedFile
from inferfleet.models.sources.web import Web
from inferfleet.models.stamp import Stamp, StampFile
from inferfleet.models.transfer.depot import Depot
from inferfleet.models.transfer.peer import Holder

NOTHING = Stamp("", "", "", (), "")
SITES = {"a": "lab", "b": "lab", "c": "lab", "x": "office", "y": "office"}


def holder(name: str) -> Holder:
    return Holder(LocalHost(name), "/m", NOTHING)


def test_one_machine_of_a_site_fetches_and_the_others_copy_from_it() -> None:
    depot, got = Depot(SITES), {}
    depot.appoint("b", "k")
    assert depot.holder("lonely", "k") is None
    assert depot.holder("x", "k") is None
    waiting = [
        threading.Thread(target=lambda n=name: got.update({n: depot.holder(n, "k")}))
        for name in ("a", "c")
    ]
    for thread in waiting:
        thread.start()
    assert depot.holder("b", "k") is None
    assert got == {}
    depot.stock("b", "k", holder("b"))
    for thread in waiting:
        thread.join(10)
    assert {name: found.host.name for name, found in got.items()} == {"a": "b", "c": "b"}
    depot.stock("a", "k", holder("a"))
    assert {depot.holder("c", "k").host.name for _ in range(2)} == {"a", "b"}


def test_when_the_fetching_machine_gives_up_the_next_one_fetches() -> None:
    depot, got = Depot(SITES), []
    depot.appoint("a", "k")
    depot.appoint("a", "other")
    thread = threading.Thread(target=lambda: got.append(depot.holder("b", "k")))
    thread.start()
    depot.give_up("a", "other")
    assert got == []
    depot.give_up("a")
    thread.join(10)
    assert got == [None]


def store(base: str, mark: str) -> str:
    return f".{base}@{mark * 12}"


def stamp(base: str, mark: str, *digests: str, revision: str = "") -> Stamp:
    files = tuple(StampFile(f"f{n}", 10, digest) for n, digest in enumerate(digests))
    return Stamp(f"hf:org/{base}", revision or mark, store(base, mark), files, "now")


def need(base: str, service: str = "s", aliases: tuple[str, ...] = ()) -> ModelNeed:
    return ModelNeed(
        service, base, Source("hf", f"org/{base}"), f"/m/hf/x/{base}", "",
        aliases={f"/m/{alias}": {} for alias in aliases}, models_dir="/m",
    )  # fmt: skip


def disk(
    *,
    links: dict[str, str],
    files: dict[str, list[OnDisk]],
    stamps: dict[str, Stamp],
    **more: object,
) -> Shelf:
    stores = {name: tuple(found) for name, found in files.items()}
    return Shelf(1000, 2000, links, stores, stamps, **more)  # type: ignore[arg-type]


A, B = store("main", "a"), store("main", "b")
TWO = {
    "links": {"hf/x/main": B},
    "files": {
        f"hf/x/{A}": [OnDisk(1, 2, 10, "f0"), OnDisk(2, 1, 70, "f1")],
        f"hf/x/{B}": [OnDisk(1, 2, 10, "f0"), OnDisk(3, 1, 80, "f1")],
    },
    "stamps": {"main": stamp("main", "b", "1", "3"), f"main{A}": stamp("main", "a", "1", "2")},
}


def words(found: list[Removal]) -> list[tuple[str, str, str, int]]:
    return [(r.what, r.revision, r.keep, r.frees) for r in found]


def test_an_old_revision_goes_and_frees_what_is_not_shared() -> None:
    found = removals(disk(**TWO), [need("main")], "/m")
    assert words(found) == [("old", "a", "", 70)]
    assert found[0].paths == (f"hf/x/{A}", f".inferbase/main{A}.json")
    assert found[0].key == "main"


def test_a_model_that_no_service_names_goes_whole() -> None:
    found = removals(disk(**TWO), [], "/m")
    assert words(found) == [("old", "a", "", 70), ("unused", "b", "", 90)]
    assert found[1].paths == ("hf/x/main", ".inferbase/main.json", f"hf/x/{B}")


@pytest.mark.parametrize(
    ("use", "all_generations", "keep"),
    [
        ("use\t/opt/a\t3\t/hf/x/main\n", False, "generation 3 of /opt/a uses it"),
        ("use\t/opt/a\t3\t/hf/x/main\n", True, ""),
        ("use\t/opt/b\t7 current\t/hf/x/main\n", False, "generation 7 of /opt/b runs with it"),
        ("use\t/opt/b\t7 current\t/hf/x/main\n", True, "generation 7 of /opt/b runs with it"),
        ("use\t/opt/b\t7\t/team/chat\nalias\tteam/chat\thf/x/main\n", False,
         "generation 7 of /opt/b uses it"),
        ("elsewhere\tm2\t/opt/a\n", False, "m2 uses this disk, too"),
        ("elsewhere\tm2\t/opt/a\n", True, "m2 uses this disk, too"),
    ],
)  # fmt: skip
def test_what_generations_use_stays(use: str, all_generations: bool, keep: str) -> None:
    seen = parse_shelf(f"disk\t1\t2\n{use}end\n")
    found = disk(**TWO, uses=seen.uses, elsewhere=seen.elsewhere, aliases=seen.aliases)
    rows = removals(found, [], "/m", all_generations=all_generations)
    assert [r.keep for r in rows if r.what == "unused"] == [keep]


@pytest.mark.parametrize(
    ("more", "keep"),
    [
        ({"held": frozenset({A})}, "a process reads it"),
        ({"pages": frozenset({A})}, "in huge pages (models.unpin)"),
    ],
)
def test_what_is_held_stays_whatever_is_asked(more: dict[str, frozenset[str]], keep: str) -> None:
    found = removals(disk(**TWO, **more), [need("main")], "/m", all_generations=True)
    assert words(found) == [("old", "a", keep, 0)]


def test_unfinished_files_stay_while_they_may_be_gone_on_with() -> None:
    files = {f"hf/x/{A}": [OnDisk(1, 1, 5, "f0.part")]}
    half = disk(links={}, files=files, stamps={})
    assert removals(half, [need("main")], "/m") == []
    assert words(removals(half, [], "/m")) == [("unfinished", "", "", 5)]


def test_what_another_machine_may_read_stays() -> None:
    files = {**TWO["files"], f"hf/x/{store('half', 'c')}": [OnDisk(4, 1, 5, "f0.part")]}
    stamps, aliases = TWO["stamps"], {"team/old": "hf/x/main"}
    seen = parse_shelf("disk\t1\t2\nelsewhere\tm2\t/opt/a\nend\n").elsewhere
    shared = disk(links=TWO["links"], files=files, stamps=stamps, aliases=aliases, elsewhere=seen)
    rows = removals(shared, [], "/m", all_generations=True)
    uses = "m2 uses this disk, too"
    assert {r.what: r.keep for r in rows} == dict.fromkeys(
        ("old", "unfinished", "unused", "alias"), uses
    )
    assert {r.frees for r in rows} == {0}


def test_machines_of_one_disk_say_what_they_use() -> None:
    def seen_by(host: str, *lines: str) -> Shelf:
        found = parse_shelf("\n".join(["disk\t1\t2", f"here\t{host}", *lines, "end\n"]))
        return disk(**TWO, uses=found.uses, elsewhere=found.elsewhere, held=found.held,
                    busy=found.busy, here=found.here)  # fmt: skip

    def kept(*others: Shelf) -> dict[str, str]:
        rows = removals(one.joined(others), [], "/m", all_generations=True)
        return {r.what: r.keep for r in rows}

    one = seen_by("m1", "elsewhere\tm2\t/opt/a", "elsewhere\tm3\t/opt/a")
    two = seen_by("m2", "elsewhere\tm1\t/opt/a", "elsewhere\tm3\t/opt/a")
    three = seen_by("m3", f"held\t/{A}/", "use\t/opt/a\t5 current\t/hf/x/main", "lock\tk")
    assert one.same_disk(two)
    assert kept() == dict.fromkeys(("old", "unused"), "m2, m3 uses this disk, too")
    assert kept(two) == dict.fromkeys(("old", "unused"), "m3 uses this disk, too")
    runs = "generation 5 of /opt/a runs with it"
    assert kept(two, three) == {"old": "a process reads it", "unused": runs}
    assert one.joined([two, three]).busy == {"k"}
    # Only one that can be read is known.
    unread = seen_by("m3", "elsewhere\t/opt/b (cannot be read)")
    assert kept(two, unread) == dict.fromkeys(
        ("old", "unused"), "/opt/b (cannot be read) uses this disk, too"
    )
    empty = disk(links={}, files={}, stamps={})
    assert not empty.same_disk(empty)


def test_while_any_run_fetches_only_unused_models_go() -> None:
    files = {**TWO["files"], f"hf/x/{store('half', 'c')}": [OnDisk(4, 1, 5, "f0.part")]}
    stamps, aliases = TWO["stamps"], {"team/old": "hf/x/main"}
    busy = disk(links=TWO["links"], files=files, stamps=stamps, aliases=aliases,
                busy=frozenset({"another"}))  # fmt: skip
    at_work = "another run is at work on a model"
    kept = {r.what: r.keep for r in removals(busy, [], "/m")}
    assert kept == {"unfinished": at_work, "old": at_work, "unused": "", "alias": at_work}
    # A lock of one's own is no other run.
    assert {r.keep for r in removals(busy, [], "/m", held="another")} == {""}


def test_an_alias_that_nobody_claims_goes() -> None:
    found = disk(**TWO, aliases={"team/old": "hf/x/main", "team/chat": "hf/x/main"})
    rows = removals(found, [need("main", aliases=("team/chat",))], "/m")
    assert [(r.what, r.place) for r in rows] == [("old", f"hf/x/{A}"), ("alias", "team/old")]


def test_bytes_to_fetch() -> None:
    web = Web("https://h.example/x", "x")
    files = (
        WantedFile("same", web, 10, "1"),
        WantedFile("new", web, 100, "9"),
        WantedFile("half", web, 50, "8"),
    )
    files_there = {f"hf/x/{store('main', 'c')}": [OnDisk(9, 1, 20, "half.part")]}
    files_there |= TWO["files"]
    found = disk(links={}, files=files_there, stamps=TWO["stamps"])
    place = ("hf/x/main", store("main", "c"))
    assert found.to_fetch(Contents("c", files), *place) == 130
    assert found.to_fetch(Contents("c", (WantedFile("x", web),)), *place) is None


def test_bytes_of_files_that_are_gone_or_short_come_again() -> None:
    web = Web("https://h.example/x", "x")
    wanted = Contents("b", (WantedFile("f0", web, 10, "1"), WantedFile("f1", web, 80, "3")))
    files = (StampFile("f0", 10, "1"), StampFile("f1", 80, "3"))
    stamps = {"main": Stamp("hf:org/main", "b", B, files, "now")}
    there = OnDisk(1, 1, 10, "f0"), OnDisk(3, 1, 80, "f1")
    for left, bytes_ in ((there, 0), (there[:1], 80), ((), 90)):
        found = disk(links={"hf/x/main": B}, files={f"hf/x/{B}": list(left)}, stamps=stamps)
        assert found.to_fetch(wanted, "hf/x/main", B) == bytes_
        # So it is for another model that has the same files.
        assert found.to_fetch(wanted, "hf/x/other", A) == bytes_
    assert disk(links={}, files={}, stamps=stamps).to_fetch(wanted, "hf/x/main", B) == 90
    cut = {f"hf/x/{B}": [there[0], OnDisk(3, 1, 30, "f1")]}
    assert disk(links={}, files=cut, stamps=stamps).to_fetch(wanted, "hf/x/other", A) == 80


def used(tmp_path: Path) -> tuple[Path, Path]:
    """A models directory with one model in it, and the root of another inferbase that used it."""
    models, other = tmp_path / "models", tmp_path / "other"
    (models / "hf" / "x" / A).mkdir(parents=True)
    (models / "hf" / "x" / "main").symlink_to(A)
    (models / ".inferbase").mkdir()
    (models / ".inferbase" / "roots").write_text(f"{os.uname().nodename} {other}\n")
    return models, other


@pytest.mark.parametrize(
    ("way", "script"),
    [
        ("not mounted", "ln -s /nowhere/at/all other"),
        ("not listed", "mkdir -p other/.inferbase && : >other/.inferbase/generations"),
        ("not read", "mkdir -p other/.inferbase/generations/1 bin"),
        ("no more", "true"),
        ("empty", "mkdir -p other/.inferbase/generations/1"),
    ],
)  # fmt: skip
def test_a_root_that_cannot_be_read_counts_as_using_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, script: str
) -> None:
    models, other = used(tmp_path)
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    if way == "not read":
        (tmp_path / "bin" / "grep").write_text("#!/bin/sh\nexit 2\n")
        (tmp_path / "bin" / "grep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    found = read_shelf(LocalHost("here"), str(models), str(tmp_path / "mine"), sudo=False)
    known = way in {"no more", "empty"}
    assert found.elsewhere == (() if known else (f"{other} (cannot be read)",))
    kept = [r.keep for r in removals(found, [], str(models), all_generations=True)]
    assert kept == ["" if known else f"{other} (cannot be read) uses this disk, too"]


def test_a_lock_counts_while_its_owner_may_run(tmp_path: Path) -> None:
    models, _ = used(tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    born = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    here = os.uname().nodename
    owners = {
        "lives": f"{os.getpid()} {born} {here} {boot}",
        "far": f"{ended.pid} 1 {here}-2 {boot}",
        "strange": "",
        "dead": f"{ended.pid} {born} {here} {boot}",
        "another": f"{os.getpid()} 1 {here} {boot}",
        "before": f"{os.getpid()} {born} {here} 0-0",
    }
    for key, owner in owners.items():
        (models / ".inferbase" / f"{key}.lock").write_text(f"{owner}\n")
    found = read_shelf(LocalHost("here"), str(models), str(tmp_path), sudo=False)
    assert found.busy == {"lives", "far", "strange"}


def test_the_real_script_reads_a_real_folder(tmp_path: Path) -> None:
    models, root = tmp_path / "models dir", tmp_path / "root"
    place = models / "hf" / "x"
    (place / A / "sub").mkdir(parents=True)
    (place / A / "sub" / "f one").write_bytes(b"12345")
    (place / "main").symlink_to(A)
    (models / ".inferbase").mkdir()
    (models / ".inferbase" / "main.json").write_text(stamp("main", "a").to_json() + "\n")
    alias = models / "team" / "chat"
    alias.mkdir(parents=True)
    (alias / ".inferbase-alias").write_text('["sub"]\n')
    (alias / "sub").symlink_to("../../hf/x/main/sub")
    for number, text in (("1", "model: /app/hf/x/main/f"), ("2", "model: /app/team/chat")):
        generation = root / ".inferbase" / "generations" / number
        generation.mkdir(parents=True)
        (generation / "compose.yaml").write_text(text)
    (root / "current").symlink_to(".inferbase/generations/2")
    with (place / A / "sub" / "f one").open("rb"):
        found = read_shelf(
            LocalHost("here"),
            str(models),
            str(root),
            sudo=False,
            paths=[str(tmp_path / "no"), "/"[:0]],
        )
    assert found.links == {"hf/x/main": A}
    (file,) = found.stores[f"hf/x/{A}"]
    assert (file.size, file.path, file.links) == (5, "sub/f one", 1)
    assert found.record(f"hf/x/{A}") == ("main", stamp("main", "a"))
    assert found.aliases == {"team/chat": "hf/x/main"}
    assert [(u.generation, u.current, u.place) for u in found.uses] == [
        (1, False, "hf/x/main"),
        (2, True, "team/chat"),
    ]
    assert found.held == {A}
    assert found.free > 0
    assert found.users("hf/x/main") == list(found.uses)


def test_one_that_cannot_be_copied_from_is_passed_over() -> None:
    depot = Depot(SITES)
    assert depot.holder("a", "k") is None
    depot.stock("a", "k", holder("a"))
    assert depot.holder("b", "k").host.name == "a"
    # b cannot copy from a: nobody is fetching any more, so b fetches, and c copies from a.
    assert depot.holder("b", "k", but={"a"}) is None
    assert depot.holder("c", "k").host.name == "a"
    depot.stock("b", "k", holder("b"))
    assert depot.holder("c", "k", but={"a"}).host.name == "b"
