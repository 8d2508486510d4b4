"""LocalHost and SshHost keep the same promises: every test here runs against both."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import free_port
from sshd_server import Sshd, require_sshd

from inferfleet.errors import FleetError
from inferfleet.hosts import shell
from inferfleet.hosts.host import Host
from inferfleet.hosts.local import LocalHost
from inferfleet.hosts.ssh import SshHost

AWKWARD = "a'b\"c\\d$HOME `id` \\\\ !x\n\tno\\nline é*?~#;&|<>(){}[]\\'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require_sshd()
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "local":
        yield LocalHost("m1")
        return
    server = request.getfixturevalue("server")
    (tmp_path / "known").write_text(server.known)
    (tmp_path / "config").write_text("")
    ssh = SshHost(
        "m1",
        "127.0.0.1",
        port=server.port,
        identity=str(server.client_key),
        known_hosts=str(tmp_path / "known"),
        ssh_config=str(tmp_path / "config"),
    )
    yield ssh
    ssh.close()


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_status_and_outputs(host: Host) -> None:
    result = host.run("echo out; echo err >&2; exit 7")
    assert (result.exit, result.out, result.err) == (7, "out\n", "err\n")


def test_success_without_output(host: Host) -> None:
    result = host.run("true")
    assert (result.exit, result.out, result.err) == (0, "", "")


def test_input_arrives_byte_for_byte(host: Host) -> None:
    data = bytes(range(256)) * 4096
    assert host.run("sha256sum", input=data).out.split()[0] == hashlib.sha256(data).hexdigest()


def test_empty_input_is_an_ended_input(host: Host) -> None:
    assert host.run("cat; echo done").out == "done\n"


def test_megabytes_in_both_directions_at_once(host: Host) -> None:
    data = b"0123456789abcde\n" * (1 << 20)
    result = host.run("tee /dev/fd/3 3>&2", input=data)
    assert result.out.encode() == data
    assert result.err.encode() == data


def test_script_that_does_not_read_its_input(host: Host) -> None:
    assert host.run("exit 3", input=bytes(8 << 20)).exit == 3


def test_bad_bytes_are_replaced(host: Host) -> None:
    assert host.run(r"printf 'a\377b'").out == "a\ufffdb"


def test_awkward_characters_reach_the_script(host: Host) -> None:
    assert host.run(f"printf %s {shlex.quote(AWKWARD)}").out == AWKWARD


def test_script_longer_than_an_argument(host: Host) -> None:
    value = "it's \\ long\n" * 30_000
    result = host.run(f"printf %s {shlex.quote('x')}\n: {shlex.quote(value)}\ncat", input=b"data")
    assert (result.exit, result.out) == (0, "xdata")


def test_timeout_ends_the_wait(host: Host) -> None:
    with pytest.raises(FleetError, match=r"m1: the command did not end within 0\.3 s"):
        host.run("sleep 30", timeout=0.3)
    assert host.run("echo again").out == "again\n"


def test_many_threads_on_one_host(host: Host) -> None:
    def one(number: int) -> str:
        return host.run(f"cat; echo {number}", input=b"n").out

    with ThreadPoolExecutor(14) as pool:  # more than sshd allows at once
        assert list(pool.map(one, range(14))) == [f"n{number}\n" for number in range(14)]


def test_conversation(host: Host) -> None:
    talk = host.converse('while read -r word; do echo "got $word"; done; echo bye; exit 4')
    talk.send(b"one\n")
    assert talk.readline(30) == "got one"
    with pytest.raises(TimeoutError):
        talk.readline(0.05)
    talk.send(b"two\nthree\n")
    assert talk.readline(30) == "got two"
    result = talk.finish(30)
    assert (result.exit, result.out) == (4, "got three\nbye\n")


def test_conversation_whose_script_ends_first(host: Host) -> None:
    talk = host.converse("printf 'last words'; echo why >&2; exit 9")
    assert talk.readline(30) == "last words"
    assert talk.readline(30) is None
    talk.send(bytes(1 << 20))
    result = talk.finish(30)
    assert (result.exit, result.out, result.err) == (9, "", "why\n")


def test_stream_yields_lines_of_both_outputs(host: Host) -> None:
    lines = list(host.stream("echo one; echo two >&2; echo; printf three"))
    assert lines == ["one", "two", "", "three"]


def test_stream_has_no_input(host: Host) -> None:
    assert list(host.stream("cat; echo end")) == ["end"]


def test_closed_stream_ends_the_script_and_its_children(host: Host) -> None:
    stream = host.stream("echo $$; sleep 300 & echo $!; wait")
    pids = [int(next(stream)), int(next(stream))]
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    stream.close()  # type: ignore[attr-defined]
    assert eventually(lambda: not any(_alive(pid) for pid in pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.path.encode() * 50_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_forward_carries_http(host: Host, web: int) -> None:
    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            body: bytes = answer.read()
            return body

    with host.forward(web, free_port()) as port, ThreadPoolExecutor(4) as pool:
        paths = [f"/{n}" for n in range(8)]
        assert list(pool.map(get, paths)) == [path.encode() * 50_000 for path in paths]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_forward_to_another_address(host: Host) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        with host.forward(listener.getsockname()[1], address="127.0.0.2") as port:
            near = socket.create_connection(("127.0.0.1", port), timeout=30)
            far, _ = listener.accept()
            near.sendall(b"x")
            assert far.recv(1) == b"x"
            far.sendall(b"y")
            assert near.recv(1) == b"y"
        near.close()
        far.close()


def test_forward_hands_on_the_end_of_one_direction(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                received = b"".join(iter(lambda: peer.recv(4096), b""))
                peer.sendall(received.upper())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with (
            host.forward(listener.getsockname()[1], free_port()) as port,
            socket.create_connection(("127.0.0.1", port), timeout=30) as near,
        ):
            near.sendall(b"half")
            near.shutdown(socket.SHUT_WR)
            assert near.recv(100) == b"HALF"
            assert near.recv(100) == b""
        thread.join(30)


def test_forward_to_nobody_closes_the_connection(host: Host) -> None:
    with (
        host.forward(free_port(), free_port()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as near,
    ):
        assert near.recv(1) == b""


def test_forward_ends_with_open_connections(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with host.forward(listener.getsockname()[1], free_port()) as port:
            near = socket.create_connection(("127.0.0.1", port), timeout=30)
            far, _ = listener.accept()
        assert near.recv(1) == b""
        assert far.recv(1) == b""
        near.close()
        far.close()


def test_forward_from_a_taken_port(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(FleetError, match=f"cannot listen on 127.0.0.1:{port}"),
            host.forward(1, port),
        ):
            pytest.fail("the port was had twice")


def test_local_forward_needs_no_relay() -> None:
    with LocalHost().forward(4711) as port:
        assert port == 4711


@pytest.mark.parametrize("sh", ["sh", "bash", "dash", "zsh", "fish"])
def test_every_shell_reads_the_quoting(sh: str) -> None:
    found = subprocess.run(["sh", "-c", f"command -v {sh}"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{sh} is not installed")
    line = shell.plain(f"printf %s {shlex.quote(AWKWARD)}").line
    done = subprocess.run([sh, "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == AWKWARD


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_quoted_text_is_one_word_for_python_too(text: str) -> None:
    assert shlex.split(shell.quote(text)) == [text]


def test_login_shell_is_not_asked_to_read_backslashes_in_single_quotes() -> None:
    quoted = shell.quote("a\\b'c")
    assert quoted == "'a'\"\\\\\"'b'\"'\"'c'"
    assert os.fsencode(quoted)
