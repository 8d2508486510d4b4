"""A model onto a machine over a real SSH connection, also when that connection is cut."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd_server import Sshd, require_sshd

from inferfleet.errors import FleetError
from inferfleet.hosts.ssh import SshHost
from inferfleet.models.needs import model_need
from inferfleet.models.observe import observe_script, parse_observed
from inferfleet.models.prune import Removal, prune, removals
from inferfleet.models.shelf import read_shelf
from inferfleet.models.transfer.fetch import bring

DATA = random.Random(3).randbytes(24_000_000)


class Log:
    def __init__(self) -> None:
        self.moves: list[int] = []
        self.moved = threading.Event()

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        self.moves.append(done)
        self.moved.set()

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHost]:
    require_sshd()
    server = Sshd(tmp_path / "sshd")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(server.known)
    (tmp_path / ".ssh" / "config").write_text(
        f"Host m1\n HostName 127.0.0.1\n Port {server.port}\n User {server.user}\n"
        f" IdentityFile {server.client_key}\n"
    )
    host = SshHost("m1", "m1")
    yield host
    host.close()
    server.close()


def test_a_cut_push_goes_on_where_it_stopped(tmp_path: Path, host: SshHost) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(DATA)
    need = model_need("chat", f"file:{source}", "hf", str(tmp_path / "models dir"))
    assert need is not None

    class Cutter(Log):
        def advance(self, need_key: str, done: int, total: int | None) -> None:
            super().advance(need_key, done, total)
            if done > 10_000_000:
                host.close()

    with pytest.raises(FleetError):
        bring(host, need, progress=Cutter(), secrets={})
    assert not Path(need.directory).exists()
    again = Log()
    assert bring(host, need, progress=again, secrets={}).changed
    assert again.moves[0] > 10_000_000
    assert Path(need.path).read_bytes() == DATA
    result = host.run(observe_script([need]))
    assert parse_observed(result.out.splitlines())[need.key].present
    assert bring(host, need, progress=again, secrets={}).changed is False


def test_pruning_looks_again_while_it_holds_the_lock(tmp_path: Path, host: SshHost) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(DATA[:1000])
    models = str(tmp_path / "models")
    need = model_need("chat", f"file:{source}", "hf", models)
    assert need is not None
    assert bring(host, need, progress=Log(), secrets={}).changed

    def look(held: str) -> list[Removal]:
        shelf = read_shelf(host, models, str(tmp_path / "root"), sudo=False)
        assert shelf.busy == ({held} if held else frozenset())
        return removals(shelf, [], models, held=held)

    (listed,) = look("")
    assert prune(host, models, listed, look, sudo=False) == ""
    assert not Path(need.directory).exists()
    assert look("") == []
