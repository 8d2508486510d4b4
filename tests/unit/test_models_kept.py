"""Old revisions stay and come back without the hub; copies through here; checks; refusals."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from unit.models_servers import Asset, Hub, Server, serving

from inferfleet.errors import FleetError
from inferfleet.events import Event, silent
from inferfleet.hosts.local import LocalHost
from inferfleet.models.declared import declared_model
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need, pinned
from inferfleet.models.observe import ModelState, observe_script, parse_observed
from inferfleet.models.prune import Removal, prune, removals
from inferfleet.models.shelf import read_shelf
from inferfleet.models.sources import hub as hub_module
from inferfleet.models.sources import web
from inferfleet.models.stale import latest, staleness
from inferfleet.models.transfer import transfer
from inferfleet.models.transfer.fetch import Brought, bring, put_back
from inferfleet.models.transfer.peer import Holder, copy_of
from inferfleet.models.verify import verify
from inferfleet.schema.model import DeclaredModel
from inferfleet.secrets import Secret

BIG = random.Random(7).randbytes(1_500_000)
SMALL = b'{"tiny": true}\n'
HOST = LocalHost("m1")


class Log:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(transfer, "_PAUSE_SECONDS", 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving() as storage:
        yield Hub(server, storage)


def need_of(tmp_path: Path, place: str = "models", **keys: Any) -> ModelNeed:
    model = DeclaredModel(**{"source": "hf:org/tiny", **keys})
    need = model_need("s", "tiny", None, str(tmp_path / place), {"tiny": model})
    assert need is not None
    return need


def get(need: ModelNeed, log: Log | None = None, **more: Any) -> Brought:
    more = {"secrets": {}, "update": True, "root": "/opt/inferbase", **more}
    return bring(HOST, need, progress=log or Log(), **more)


def look(need: ModelNeed) -> ModelState:
    return parse_observed(HOST.run(observe_script([need])).out.splitlines())[need.key]


def content(need: ModelNeed) -> dict[str, bytes]:
    root = Path(need.directory)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def everything(need: ModelNeed) -> list[str]:
    """All that was made below the models directory, but for its own records."""
    root = Path(need.models_dir)
    return [str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()]


def test_an_old_revision_comes_back_without_the_hub(tmp_path: Path, hub: Hub) -> None:
    old = {"c.json": SMALL, "m.bin": BIG}
    first = hub.publish(old, large=("m.bin",))
    need = need_of(tmp_path)
    assert get(need).before is None
    hub.publish({"c.json": b"{}", "m.bin": BIG[::-1]}, large=("m.bin",))
    brought = get(need)
    assert brought.changed
    assert brought.before is not None
    assert brought.before.revision == first
    asked = len(hub.server.requests) + len(hub.storage.requests)
    pinned = need_of(tmp_path, revision=first)
    assert get(pinned, update=False).changed
    assert content(pinned) == old
    assert len(hub.server.requests) + len(hub.storage.requests) == asked
    assert content(need) == {"c.json": b"{}", "m.bin": BIG[::-1]}
    # Nothing lies twice on the disk.
    held = Path(pinned.directory, "m.bin").stat()
    assert held.st_nlink == 2


def test_a_damaged_kept_revision_is_fetched_anew(tmp_path: Path, hub: Hub) -> None:
    old = {"c.json": SMALL, "m.bin": BIG, "n.bin": SMALL * 9}
    first = hub.publish(old, large=("m.bin", "n.bin"))
    need = need_of(tmp_path)
    stamp = get(need).stamp
    assert stamp is not None
    hub.publish({"c.json": b"{}", "m.bin": BIG[::-1]}, large=("m.bin",))
    get(need)
    kept = Path(need.directory).parent / stamp.store / "m.bin"
    kept.write_bytes(BIG[:-1] + b"x")
    hub.storage.requests.clear()
    pinned, log = need_of(tmp_path, revision=first), Log()
    assert get(pinned, log, update=False).changed
    assert content(pinned) == old
    assert log.notes == ["m.bin of the kept revision is damaged or gone: fetched anew"]
    # Only what was damaged came again.
    assert {r.path for r in hub.storage.requests} == {f"/blob/{hashlib.sha256(BIG).hexdigest()}"}
    assert look(pinned).present


def test_a_damaged_kept_revision_and_no_hub(tmp_path: Path, hub: Hub) -> None:
    first = hub.publish({"m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path)
    stamp = get(need).stamp
    assert stamp is not None
    (Path(need.directory).parent / stamp.store / "m.bin").write_bytes(BIG[::-1])
    hub.server.assets[f"/api/models/org/tiny/revision/{first}"] = Asset(b"{}", 503)
    pinned, log = need_of(tmp_path, revision=first), Log()
    with pytest.raises(FleetError, match="answers HTTP 503"):
        get(pinned, log, update=False)
    assert "is damaged" in log.notes[0]
    assert not look(pinned).present


def test_only_a_whole_commit_of_the_hub_stays_what_it_is(tmp_path: Path, hub: Hub) -> None:
    first = hub.publish({"m.bin": BIG}, large=("m.bin",))
    branch, commit = need_of(tmp_path, revision="main"), need_of(tmp_path, revision=first)
    for need in (branch, commit):
        get(need)
        assert staleness(need, look(need), latest(need, {})) == "current"
    hub.publish({"m.bin": SMALL})
    assert [pinned(need) for need in (branch, commit)] == [False, True]
    assert pinned(need_of(tmp_path, source="hf:org/tiny/m.bin", revision="main", sha256="0" * 64))
    assert staleness(branch, look(branch), latest(branch, {})) == "stale"
    assert staleness(commit, look(commit), None) == "current"
    # What is there is used as it is while nobody asks for an update.
    asked = len(hub.server.requests)
    assert get(branch, update=False).changed is False
    assert len(hub.server.requests) == asked
    assert get(branch).changed
    assert content(branch) == {"m.bin": SMALL}


@pytest.mark.parametrize(("revision", "more"), [("0cb88a4f764b", True), ("v1", False)])
def test_the_beginning_of_a_commit_is_told(
    tmp_path: Path, hub: Hub, revision: str, more: bool
) -> None:
    for headers in ({}, {"X-Error-Code": "RevisionNotFound"}):
        path = f"/api/models/org/tiny/revision/{revision}"
        hub.server.assets[path] = Asset(b"{}", 404, dict(headers))
        with pytest.raises(FleetError, match=r"no (such )?rev") as caught:
            get(need_of(tmp_path, revision=revision))
        assert ("all its 40 digits" in caught.value.hint) == more


def test_a_kept_revision_is_put_back(tmp_path: Path, hub: Hub) -> None:
    first = hub.publish({"m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path, aliases={"team/chat": {"p.txt": "Be kind"}})
    get(need)
    second = hub.publish({"m.bin": SMALL, "more": b"x"})
    before = get(need).before
    assert before is not None
    put_back(HOST, need, before)
    state = look(need)
    assert (state.present, state.alias_ok) == (True, True)
    assert state.stamp is not None
    assert state.stamp.revision == first
    assert content(need) == {"m.bin": BIG}
    # The newer one is kept in its turn.
    asked = len(hub.server.requests)
    assert get(need_of(tmp_path, revision=second)).changed
    assert len(hub.server.requests) == asked


def test_files_that_any_model_has_are_not_fetched_again(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG, "c.json": SMALL}, large=("m.bin",))
    get(need_of(tmp_path))
    asked = len(hub.storage.requests)
    other = need_of(tmp_path, files=["m.bin"])
    assert get(other).changed
    assert content(other) == {"m.bin": BIG}
    assert len(hub.storage.requests) == asked


def looking(models: str, needs: list[ModelNeed], root: Path) -> Callable[[str], list[Removal]]:
    """What could go at the time of the call."""

    def look(held: str) -> list[Removal]:
        shelf = read_shelf(HOST, models, str(root), sudo=False)
        return removals(shelf, needs, models, held=held)

    return look


def pruned(models: str, found: list[Removal], needs: list[ModelNeed], root: Path) -> list[str]:
    """Why each of them stays after all, "" where it went."""
    again = looking(models, needs, root)
    return [prune(HOST, models, removal, again, sudo=False) for removal in found]


def test_what_came_into_use_after_the_listing_stays(tmp_path: Path, hub: Hub) -> None:
    first = hub.publish({"m.bin": BIG}, large=("m.bin",))
    need, root = need_of(tmp_path, aliases={"team/chat": {"p.txt": "x"}}), tmp_path / "root"
    get(need)
    second = hub.publish({"m.bin": SMALL})
    before = get(need).before
    assert before is not None
    listed = looking(need.models_dir, [], root)("")
    assert {r.what: r.revision for r in listed} == {"old": first, "unused": second, "alias": ""}
    assert {r.keep for r in listed} == {""}
    # Meanwhile an update goes back to the old files, and a generation in force uses the alias.
    put_back(HOST, need, before)
    generation = root / ".inferbase" / "generations" / "1"
    generation.mkdir(parents=True)
    (generation / "compose.yaml").write_text("/models/team/chat")
    (root / "current").symlink_to(".inferbase/generations/1")
    runs = f"generation 1 of {root} runs with it"
    stays = {r.what: pruned(need.models_dir, [r], [], root)[0] for r in listed}
    changed = "changed, or in use, since it was listed"
    assert stays == {"old": runs, "unused": changed, "alias": runs}
    assert content(need) == {"m.bin": BIG}


@pytest.mark.parametrize("way", ["grown", "busy", "gone"])
def test_unfinished_files_that_a_run_goes_on_with_stay(tmp_path: Path, way: str) -> None:
    models = tmp_path / "models"
    part = models / "hf" / "x" / ".main@aaaaaaaaaaaa" / "m.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"1234")
    listed = looking(str(models), [], tmp_path)("")
    assert [(r.what, r.keep) for r in listed] == [("unfinished", "")]
    if way == "busy":
        (models / ".inferbase").mkdir()
        (models / ".inferbase" / "hf-x-main-0123456789.lock").write_text("1 1 elsewhere 1\n")
    elif way == "grown":
        part.write_bytes(b"12345")
    else:
        part.unlink()
        part.parent.rmdir()
    (stays,) = pruned(str(models), listed, [], tmp_path)
    busy = "another run is at work on a model"
    assert stays == (busy if way == "busy" else "changed, or in use, since it was listed")
    assert part.exists() == (way != "gone")


@pytest.mark.parametrize("way", ["gone", "short"])
def test_nothing_is_put_back_that_is_not_whole(tmp_path: Path, hub: Hub, way: str) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path)
    get(need)
    hub.publish({"m.bin": SMALL})
    before = get(need).before
    assert before is not None
    folder = Path(need.directory).parent / before.store
    (folder / "m.bin").unlink()
    if way == "short":
        (folder / "m.bin").write_bytes(BIG[:-1])
    else:
        folder.rmdir()
    state = look(need)
    with pytest.raises(FleetError, match="had before are gone or changed") as caught:
        put_back(HOST, need, before)
    assert before.revision in caught.value.hint
    assert look(need) == state
    assert content(need) == {"m.bin": SMALL}
    assert folder.exists() == (way == "short")


def test_pruning_frees_what_it_says(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG, "same": SMALL}, large=("m.bin", "same"))
    need, root = need_of(tmp_path), tmp_path / "root"
    get(need)
    hub.publish({"m.bin": BIG[::-1], "same": SMALL}, large=("m.bin", "same"))
    get(need)
    shelf = read_shelf(HOST, need.models_dir, str(root), sudo=False)
    found = removals(shelf, [need], need.models_dir)
    assert [(r.what, r.frees, r.keep) for r in found] == [("old", len(BIG), "")]
    assert pruned(need.models_dir, found, [need], root) == [""]
    assert content(need) == {"m.bin": BIG[::-1], "same": SMALL}
    assert staleness(need, look(need), latest(need, {})) == "current"
    rest = read_shelf(HOST, need.models_dir, str(root), sudo=False)
    assert removals(rest, [need], need.models_dir) == []
    gone = removals(rest, [], need.models_dir)
    assert [(r.what, r.frees) for r in gone] == [("unused", len(BIG) + len(SMALL))]
    assert pruned(need.models_dir, gone, [], root) == [""]
    assert everything(need) == [".inferbase/roots"]
    assert Path(need.models_dir, ".inferbase/roots").read_text() == (
        f"{os.uname().nodename} /opt/inferbase\n"
    )


def test_pruning_an_alias_leaves_what_others_put_there(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": SMALL})
    need = need_of(tmp_path, aliases={"team/chat": {"p.txt": "x"}, "team/old": {"p.txt": "y"}})
    get(need)
    theirs = Path(need.models_dir, "team/chat/notes.txt")
    theirs.write_text("mine")
    shelf = read_shelf(HOST, need.models_dir, str(tmp_path), sudo=False)
    found = removals(shelf, [need_of(tmp_path)], need.models_dir)
    assert [(r.what, r.place) for r in found] == [("alias", "team/chat"), ("alias", "team/old")]
    assert pruned(need.models_dir, found, [need_of(tmp_path)], tmp_path) == ["", ""]
    left = [str(p.relative_to(need.models_dir)) for p in Path(need.models_dir, "team").rglob("*")]
    assert sorted(left) == ["team/chat", "team/chat/notes.txt"]
    assert content(need) == {"m.bin": SMALL}


class Counting(LocalHost):
    """Counts what is read from it."""

    bytes = 0

    def read(self, script: str, *, sudo: bool = False) -> Iterator[bytes]:
        for chunk in super().read(script, sudo=sudo):
            self.bytes += len(chunk)
            yield chunk


@pytest.mark.parametrize("half", [False, True], ids=["from-nothing", "goes-on"])
def test_a_copy_through_here(tmp_path: Path, hub: Hub, half: bool) -> None:
    data = {"m.bin": BIG, "sub/c d.json": SMALL}
    hub.publish(data, large=("m.bin",))
    here = need_of(tmp_path)
    stamp = get(here).stamp
    assert stamp is not None
    parent = Path(here.directory).parent
    source = Counting("m0")
    holder = Holder(source, str(parent / stamp.store), stamp)
    there = need_of(tmp_path, "other models")
    if half:
        part = Path(there.directory).parent / stamp.store / "m.bin.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(BIG[:1_000_000])
    asked = len(hub.server.requests)
    log = Log()
    brought = get(there, log, supply=copy_of(holder, HOST, log))
    assert brought.changed
    assert brought.stamp is not None
    assert (brought.stamp.store, brought.stamp.revision) == (stamp.store, stamp.revision)
    assert content(there) == data
    assert len(hub.server.requests) == asked
    assert "through this machine" in log.notes[0]
    assert source.bytes == len(BIG) + len(SMALL) - (1_000_000 if half else 0)


def test_a_damaged_copy_is_not_put_in_place(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    here = need_of(tmp_path)
    stamp = get(here).stamp
    assert stamp is not None
    place = Path(here.directory).parent / stamp.store
    (place / "m.bin").write_bytes(BIG[::-1])
    there = need_of(tmp_path, "other")
    with pytest.raises(FleetError, match=r"wrong checksum of m\.bin"):
        get(there, supply=copy_of(Holder(LocalHost("m0"), str(place), stamp), HOST, Log()))
    assert everything(there) == [".inferbase/roots"]


def test_verify_reads_every_byte(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG, "c.json": SMALL}, large=("m.bin",))
    need = need_of(tmp_path)

    def checked() -> tuple[str, str]:
        (row,) = verify(HOST, [(need, ("s",), look(need))], silent, sudo=False)
        return row["verdict"], row["detail"]

    assert checked() == ("missing", "fetch it with `invoke update-models`")
    get(need)
    assert checked() == ("right", "")
    file = Path(need.directory, "m.bin")
    file.write_bytes(BIG[:-1] + b"x")
    verdict, detail = checked()
    assert verdict == "wrong"
    assert f"{file}: expected {hashlib.sha256(BIG).hexdigest()}, found" in detail
    said: list[Event] = []
    list(verify(HOST, [(need, ("s",), look(need))], said.append, sudo=False))
    assert {(e.doing, e.text) for e in said} == {("checking", need.title)}
    # What the message says repairs it.
    file.unlink()
    assert get(need, update=False).changed
    assert checked() == ("right", "")
    file.write_bytes(BIG + b"\0" * 100)
    (row,) = verify(HOST, [(need, ("s",), _longer(look(need), need))], silent, sudo=False)
    assert row["verdict"] == "right"


def _longer(state: ModelState, need: ModelNeed) -> ModelState:
    """The state as it was before a file became longer, as in huge pages."""
    return ModelState(need.key, True, state.stamp, state.bytes, True)


# A way to break things -> what the error and its hint must say.
REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "gated": ({}, "is gated and there is no token", "accept its terms"),
    "no-licence": ({"token": "mine"}, "HF_TOKEN has no access", "accept its terms"),
    "wrong-token": ({"token": "mine"}, "the hub refuses HF_TOKEN", "check that HF_TOKEN is valid"),
    "no-model": ({}, "does not exist or is private", "check the spelling"),
    "wrong-sum": ({}, "the hub has sha256", "correct sha256"),
    "no-such-file": ({}, "checksums names n.bin", "did you mean m.bin"),
    "down": ({}, "answers HTTP 502: it is out of order itself", "HF_ENDPOINT"),
    "overloaded": ({}, "answers HTTP 503", "again in 40 s, or set HF_ENDPOINT"),
    "too-often": ({}, "HTTP 429: too many requests from here", "again in 120 s; with HF_TOKEN"),
    "rate-limit": ({}, "HTTP 429: too many requests from here", "again in 55 s; with HF_TOKEN"),
    "gated-busy": ({}, "answers HTTP 503", "run the same command again later"),
    "lost": ({}, "has no such repository (HTTP 404)", "check the spelling; a mirror"),
    "teapot": ({}, "answers HTTP 418 for hf:org/tiny", "check HF_ENDPOINT"),
    "slow": ({}, "cannot be reached", "HF_ENDPOINT"),
    "silent": ({}, "m.bin cannot be downloaded", "check the network"),
    "elsewhere": ({}, "redirects to an address that is not https", "use another URL"),
}


ANSWERS = {
    "down": Asset(b"{}", 502),
    "overloaded": Asset(b"{}", 503, {"Retry-After": "40"}),
    "too-often": Asset(b"{}", 429, {"Retry-After": "120"}),
    "rate-limit": Asset(b"{}", 429, {"RateLimit": '"api";r=0;t=55'}),
    "lost": Asset(b"{}", 404),
    "teapot": Asset(b"{}", 418),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_make_nothing(
    case: str, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, what, hint = REFUSALS[case]
    _break(case, hub, monkeypatch, tmp_path)
    sums: Mapping[str, str] = {
        "wrong-sum": {"m.bin": "0" * 64}, "no-such-file": {"n.bin": "0" * 64},
    }.get(case, {})  # fmt: skip
    need = need_of(tmp_path, checksums=dict(sums), source=more.get("source", "hf:org/tiny"))
    secrets = {"HF_TOKEN": Secret(more["token"])} if "token" in more else {}
    with pytest.raises(FleetError) as caught:
        get(need, secrets=secrets)
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert [path for path in everything(need) if path != ".inferbase/roots"] == []
    assert look(need) == ModelState(need.key, False, None, 0, True)


def _break(case: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api = "/api/models/org/tiny"
    if case in {"gated", "no-licence"}:
        hub.gated, hub.token = True, "another"
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    if case == "wrong-token":
        message = {"X-Error-Message": "Invalid credentials in Authorization header"}
        hub.server.assets[api] = Asset(b"{}", 401, message)
    elif case == "no-model":
        hub.server.assets[api] = Asset(b"{}", 401, {"X-Error-Code": "RepoNotFound"})
    elif case == "gated-busy":
        hub.gated = True
        hub.publish({"m.bin": BIG}, large=("m.bin",))
        hub.server.assets[f"/org/tiny/resolve/{hub.commit}/m.bin"] = Asset(b"", 503)
    elif case in ANSWERS:
        hub.server.assets[api] = ANSWERS[case]
    elif case == "slow":
        hub.server.assets[api].delay = 2
        monkeypatch.setattr(hub_module, "_ANSWER_SECONDS", 0.2)
    elif case in {"silent", "elsewhere"}:
        _without_tools(monkeypatch, tmp_path)
    if case == "silent":
        hub.large(BIG).delay = 1
        monkeypatch.setattr(web, "_client", lambda: httpx.Client(timeout=0.2))
    elif case == "elsewhere":
        path = f"/org/tiny/resolve/{hub.commit}/m.bin"
        hub.server.assets[path] = Asset(b"", 302, {"Location": "http://elsewhere.example/m.bin"})


def _without_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without curl and wget gets the file through here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for source in ("/usr/bin", "/bin"):
        for tool in Path(source).iterdir():
            if tool.name not in ("curl", "wget") and not (folder / tool.name).exists():
                (folder / tool.name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(folder))


def test_a_gated_model_is_refused_before_it_is_planned(tmp_path: Path, hub: Hub) -> None:
    hub.gated, hub.token = True, "another"
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    with pytest.raises(FleetError, match="is gated"):
        latest(need_of(tmp_path), {})


def test_a_model_file_with_a_bare_repository_means_the_hub() -> None:
    assert declared_model("tiny", DeclaredModel(source="org/tiny")).source.scheme == "hf"


@pytest.mark.parametrize("cache", ["hub/models--org--tiny", "models--org--tiny"])
def test_files_of_the_hubs_own_cache_are_linked(tmp_path: Path, hub: Hub, cache: str) -> None:
    """As huggingface_hub lays them out: blobs by checksum, links to them in snapshots."""
    hub.publish({"c.json": SMALL, "m.bin": BIG, "n.bin": BIG[::-1]}, large=("m.bin", "n.bin"))
    need = need_of(tmp_path)
    blobs = Path(need.models_dir, cache, "blobs")
    blobs.mkdir(parents=True)
    blob = blobs / hashlib.sha256(BIG).hexdigest()
    blob.write_bytes(BIG)
    damaged = blobs / hashlib.sha256(BIG[::-1]).hexdigest()
    damaged.write_bytes(BIG[:-1])
    get(need)
    assert content(need) == {"c.json": SMALL, "m.bin": BIG, "n.bin": BIG[::-1]}
    asked = (f"/blob/{blob.name}", f"/blob/{damaged.name}")
    assert [len(hub.storage.asked(path)) for path in asked] == [0, 1]
    # The cache keeps its own, whatever becomes of ours.
    assert Path(need.directory, "m.bin").samefile(blob)
    assert damaged.read_bytes() == BIG[:-1]
