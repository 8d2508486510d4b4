"""Connections begun before it is known how to log in."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from sshd_server import Sshd, require_sshd

from inferfleet.errors import FleetError
from inferfleet.hosts.early import MOST, Early
from inferfleet.hosts.ssh import SshHost

WORDS = {"m1": "m1 user 22"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require_sshd()
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


def remembered(folder: Path, server: socket.socket, words: dict[str, str] = WORDS) -> Early:
    """A new run after one that connected to the server."""
    with socket.create_connection(server.getsockname()) as sock:
        Early(folder, words).remember("m1", sock)
    server.accept()[0].close()
    return Early(folder, words)


def test_a_remembered_address_is_connected_to_before_it_is_asked_for(
    folder: Path, listener: socket.socket
) -> None:
    early = remembered(folder, listener)
    early.begin()
    peer, _ = listener.accept()
    port = listener.getsockname()[1]
    taken = early.take("m1", "127.0.0.1", port, 5)
    assert taken is not None
    assert taken.getsockname() == peer.getpeername()
    assert early.take("m1", "127.0.0.1", port, 5) is None, "taken once"
    taken.close()
    peer.close()


def test_a_name_may_stand_for_the_address(folder: Path, listener: socket.socket) -> None:
    early = remembered(folder, listener)
    early.begin()
    taken = early.take("m1", "localhost", listener.getsockname()[1], 5)
    assert taken is not None
    taken.close()


@pytest.mark.parametrize(("host", "other_port"), [("192.0.2.1", False), ("127.0.0.1", True)])
def test_a_connection_to_elsewhere_is_closed(
    folder: Path, listener: socket.socket, host: str, other_port: bool
) -> None:
    early = remembered(folder, listener)
    early.begin()
    peer, _ = listener.accept()
    port = listener.getsockname()[1]
    assert early.take("m1", host, port + other_port, 5) is None
    peer.settimeout(5)
    assert peer.recv(1) == b""
    peer.close()


def test_one_that_the_other_side_has_closed_is_not_given(
    folder: Path, listener: socket.socket
) -> None:
    early = remembered(folder, listener)
    early.begin()
    listener.accept()[0].close()
    host, port = listener.getsockname()
    assert early.take("m1", host, port, 5) is None


def test_nobody_listens_any_more(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        early = remembered(folder, server)
        host, port = server.getsockname()
    early.begin()
    assert early.take("m1", host, port, 5) is None


def test_other_words_or_another_configuration_begin_nothing(
    folder: Path, listener: socket.socket, home: Path
) -> None:
    remembered(folder, listener)
    host, port = listener.getsockname()
    for early in (Early(folder, {"m1": "m1 other 22"}), Early(None, WORDS), Early(folder, {})):
        early.begin()
        assert early.take("m1", host, port, 5) is None
    (home / ".ssh" / "config").write_text("Host m1\n")
    early = Early(folder, WORDS)
    early.begin()
    assert early.take("m1", host, port, 5) is None
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("text", ["", "x\n", "a\nb\nc\n", "a\nb\nc\nd\n"])
def test_a_damaged_memory_is_no_memory(folder: Path, text: str) -> None:
    (folder / "m1.address").write_text(text)
    early = Early(folder, WORDS)
    early.begin()
    assert early.take("m1", "127.0.0.1", 22, 5) is None


def test_a_folder_that_cannot_be_written_remembers_nothing(
    tmp_path: Path, listener: socket.socket
) -> None:
    early = remembered(tmp_path / "missing", listener)
    early.begin()
    assert not (tmp_path / "missing").exists()
    assert early.take("m1", *listener.getsockname(), 5) is None


def test_never_more_connections_than_work_at_once(folder: Path, listener: socket.socket) -> None:
    words = {f"m{number}": "same" for number in range(MOST + 5)}
    with socket.create_connection(listener.getsockname()) as sock:
        for name in words:
            Early(folder, words).remember(name, sock)
    listener.accept()[0].close()
    early = Early(folder, words)
    early.begin()
    begun = [early.take(name, *listener.getsockname(), 5) for name in words]
    assert [sock is not None for sock in begun] == [True] * MOST + [False] * 5
    for sock in filter(None, begun):
        sock.close()


class TestThroughSsh:
    def host(self, folder: Path, server: Sshd) -> tuple[SshHost, Early]:
        early = Early(folder, WORDS)
        early.begin()
        host = SshHost(
            "m1",
            "127.0.0.1",
            server.user,
            server.port,
            identity=str(server.client_key),
            early=early,
        )
        return host, early

    def test_the_second_run_uses_it(self, folder: Path, home: Path, server: Sshd) -> None:
        (home / ".ssh" / "known_hosts").write_text(server.known)
        for expected in (False, True):
            host, early = self.host(folder, server)
            assert (early.take("m1", "127.0.0.1", server.port, 5) is not None) is expected
            host, _ = self.host(folder, server)
            assert host.run("echo hello").out == "hello\n"
            host.close()
        assert os.stat(folder / "m1.address").st_mode & 0o777 == 0o600

    def test_its_host_key_is_verified(self, folder: Path, home: Path, server: Sshd) -> None:
        (home / ".ssh" / "known_hosts").write_text(server.known)
        host, _ = self.host(folder, server)
        host.run("true")
        host.close()
        (home / ".ssh" / "known_hosts").write_text("")
        host, _ = self.host(folder, server)
        with pytest.raises(FleetError, match="host key"):
            host.connect()

    def test_a_server_that_went_away(self, folder: Path, home: Path, server: Sshd) -> None:
        gone = free_port()
        with socket.create_server(("127.0.0.1", gone)) as listener:
            remembered(folder, listener)
        early = Early(folder, WORDS)
        early.begin()
        host = SshHost("m1", "127.0.0.1", server.user, gone, early=early)
        with pytest.raises(FleetError, match="refused the connection"):
            host.connect()
