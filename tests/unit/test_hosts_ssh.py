"""SshHost against real servers: host keys on every hop, logins, lost connections."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paramiko import AutoAddPolicy, RejectPolicy, WarningPolicy
from ports import free_port
from sshd_server import Sshd, make_key, require_sshd
from tools import needs

from inferfleet.errors import FleetError
from inferfleet.hosts import connection
from inferfleet.hosts.config import Login
from inferfleet.hosts.ssh import SshHost


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require_sshd()
    server = Sshd(tmp_path_factory.mktemp("sshd"), types=("rsa", "ed25519"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require_sshd()
    gate = Sshd(tmp_path_factory.mktemp("gate"))
    yield gate
    gate.close()


class Home:
    """A user's ~/.ssh, and hosts that use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ssh = path / ".ssh"
        self.ssh.mkdir()
        self.hosts: list[SshHost] = []

    def write(self, name: str, text: str) -> Path:
        (self.ssh / name).write_text(text)
        return self.ssh / name

    def host(self, address: str = "m1", **options: object) -> SshHost:
        host = SshHost("m1", address, **options)  # type: ignore[arg-type]
        self.hosts.append(host)
        return host


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home = Home(tmp_path)
    yield home
    for host in home.hosts:
        host.close()


def block(name: str, server: Sshd, *more: str) -> str:
    lines = [
        f"Host {name}",
        "HostName 127.0.0.1",
        f"Port {server.port}",
        f"IdentityFile {server.client_key}",
        *more,
    ]
    return "\n ".join(lines) + "\n"


def failure(host: SshHost) -> FleetError:
    with pytest.raises(FleetError) as caught:
        host.run("touch was-run")
    return caught.value


def test_known_key_and_configuration_from_home(home: Home, server: Sshd) -> None:
    home.write("config", block("m1", server))
    home.write("known_hosts", server.known)
    assert home.host().run("echo hi").out == "hi\n"


def test_unknown_key_and_the_command_that_accepts_it(home: Home, server: Sshd) -> None:
    home.write("config", block("m1", server, "StrictHostKeyChecking no"))
    error = failure(home.host())
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{server.host_keys[1]}.pub"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]
    assert error.what == (
        f"host key of [127.0.0.1]:{server.port} is not known: ssh-ed25519 {shown}"
    )
    assert not (home.ssh / "known_hosts").exists()
    command = error.hint.split("then accept it: ")[1]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert home.host().run("echo hi").out == "hi\n"


def test_changed_key(home: Home, server: Sshd, gate: Sshd) -> None:
    home.write("config", block("m1", server, "StrictHostKeyChecking no"))
    home.write("known_hosts", gate.known.replace(str(gate.port), str(server.port)))
    error = failure(home.host())
    assert "has changed" in error.what
    assert f"({home.ssh}/known_hosts:1)" in error.what
    command = error.hint.split("remove the old key: ")[1]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert "is not known" in failure(home.host()).what


def test_revoked_key(home: Home, server: Sshd) -> None:
    home.write("config", block("m1", server))
    home.write(
        "known_hosts",
        f"{server.known}@revoked * {server.public(1)}\n@revoked * {server.public()}\n",
    )
    assert "is revoked" in failure(home.host()).what


def test_certificate_authority_is_no_known_key(home: Home, server: Sshd) -> None:
    home.write("config", block("m1", server))
    home.write("known_hosts", f"@cert-authority * {server.public(1)}\n")
    assert "is not known" in failure(home.host()).what


@pytest.mark.parametrize("index", [0, 1])
def test_server_is_asked_for_the_type_that_is_known(home: Home, server: Sshd, index: int) -> None:
    home.write("config", block("m1", server))
    home.write("known_hosts", f"[127.0.0.1]:{server.port} {server.public(index)}\n")
    assert home.host().run("true").exit == 0


def test_host_key_alias_and_second_file(home: Home, server: Sshd) -> None:
    home.write("first", "")
    home.write("second", f"rack7 {server.public(1)}\n")
    files = "UserKnownHostsFile ~/.ssh/first ~/.ssh/second"
    home.write("config", block("m1", server, "HostKeyAlias rack7", files))
    assert home.host().run("true").exit == 0


def test_arguments_instead_of_configuration(home: Home, server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "my known hosts"
    known.write_text(server.known)
    host = home.host(
        "127.0.0.1",
        user=server.user,
        port=server.port,
        identity=str(server.client_key),
        known_hosts=str(known),
    )
    assert host.run("true").exit == 0


@pytest.mark.parametrize("way", ["ProxyJump", "argument"])
def test_jump_host(home: Home, server: Sshd, gate: Sshd, way: str) -> None:
    more = ["ProxyJump gate"] if way == "ProxyJump" else []
    home.write("config", block("m1", server, *more) + block("gate", gate))
    home.write("known_hosts", server.known + gate.known)
    host = home.host(jump=None if more else "gate")
    source = host.run("echo $SSH_CONNECTION; cat", input=b"x" * (1 << 20)).out
    assert source.startswith("127.0.0.1 ")
    assert len(source) > 1 << 20
    target = host._connection
    assert target is not None
    for hop in (target, target.gateway):
        policy = hop.client._policy  # type: ignore[union-attr]
        assert isinstance(policy, RejectPolicy)
        assert not isinstance(policy, (AutoAddPolicy, WarningPolicy))
        assert len(hop.client.get_host_keys()) == 0


@pytest.mark.parametrize("unknown", ["gate", "m1"])
def test_unknown_key_on_either_hop(home: Home, server: Sshd, gate: Sshd, unknown: str) -> None:
    home.write("config", block("m1", server, "ProxyJump gate") + block("gate", gate))
    home.write("known_hosts", gate.known if unknown == "m1" else server.known)
    error = failure(home.host())
    port = server.port if unknown == "m1" else gate.port
    assert error.what.startswith(f"host key of [127.0.0.1]:{port} is not known")
    assert ("ssh -J " in error.hint) == (unknown == "m1")


def test_jump_host_that_cannot_reach_the_machine(home: Home, gate: Sshd) -> None:
    home.write("config", block("gate", gate))
    home.write("known_hosts", gate.known)
    error = failure(home.host("127.0.0.1", port=free_port(), jump="gate"))
    assert error.what.startswith("the jump host cannot reach [127.0.0.1]:")


@needs("ssh")
def test_proxy_command(home: Home, server: Sshd, gate: Sshd) -> None:
    via = f"ssh -F {home.ssh}/config -W %h:%p gate"
    text = block("m1", server, f"ProxyCommand {via}") + block("gate", gate)
    home.write("config", text + f"Host *\n UserKnownHostsFile {home.ssh}/known_hosts\n")
    home.write("known_hosts", server.known + gate.known)
    assert home.host().run("echo hi").out == "hi\n"


def test_refused_login_names_the_keys(home: Home, server: Sshd) -> None:
    key = make_key(home.path / "stranger")
    home.write("known_hosts", server.known)
    error = failure(home.host("127.0.0.1", user="me", port=server.port, identity=str(key)))
    assert error.what == (f"[127.0.0.1]:{server.port} refused the login of me (tried {key})")
    assert error.hint == f"let it know your key: ssh-copy-id -p {server.port} me@127.0.0.1"


def test_no_key_to_offer(home: Home, server: Sshd) -> None:
    home.write("known_hosts", server.known)
    error = failure(home.host("127.0.0.1", port=server.port))
    assert "there is no key to offer" in error.what


def test_default_key(home: Home, server: Sshd) -> None:
    home.write("known_hosts", server.known)
    make_key(home.ssh / "id_rsa", "rsa")
    shutil.copy(server.client_key, home.ssh / "id_ed25519")
    assert home.host("127.0.0.1", port=server.port).run("true").exit == 0


def test_second_key_is_tried(home: Home, server: Sshd) -> None:
    home.write("known_hosts", server.known)
    home.write("config", block("m1", server))
    stranger = make_key(home.path / "stranger")
    assert home.host(identity=str(stranger)).run("true").exit == 0


def test_unusable_key_files(home: Home, server: Sshd) -> None:
    locked = make_key(home.path / "locked", passphrase="secret")
    junk = home.write("junk", "no key\n")
    home.write("known_hosts", server.known)
    text = f"IdentityFile {locked}\nIdentityFile {junk}\nIdentityFile {home.path}/absent\n"
    home.write("config", text)
    error = failure(home.host("127.0.0.1", port=server.port))
    assert f"{locked} has a passphrase and the agent does not hold it" in error.what
    assert f"{junk} cannot be used: not a private key" in error.what
    assert f"{home.path}/absent cannot be used: No such file or directory" in error.what
    assert error.hint == f"run: ssh-add {locked}"


@pytest.fixture
def agent(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("openssh-client is not installed")
    path = home.path / "agent.sock"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    for _ in range(500):
        if path.exists():
            break
        threading.Event().wait(0.02)
    yield path
    process.terminate()
    process.wait()


def test_key_of_the_agent(home: Home, server: Sshd, agent: Path) -> None:
    home.write("known_hosts", server.known)
    subprocess.run(["ssh-add", "-q", str(server.client_key)], check=True)
    assert home.host("127.0.0.1", port=server.port).run("true").exit == 0


def test_identities_only_keeps_other_agent_keys_back(home: Home, server: Sshd, agent: Path) -> None:
    home.write("known_hosts", server.known)
    subprocess.run(["ssh-add", "-q", str(server.client_key)], check=True)
    stranger = make_key(home.path / "stranger")
    home.write("config", f"IdentitiesOnly yes\nIdentityFile {stranger}\n")
    error = failure(home.host("127.0.0.1", port=server.port))
    assert f"(tried {stranger})" in error.what
    shutil.copy(f"{server.client_key}.pub", home.path / "public.pub")
    home.write("config", f"IdentitiesOnly yes\nIdentityFile {home.path}/public.pub\n")
    os.utime(home.ssh / "config", ns=(1, 1))
    assert home.host("127.0.0.1", port=server.port).run("true").exit == 0


@needs("ssh-keygen")
def test_certificate_beside_the_key(home: Home, tmp_path: Path) -> None:
    authority = make_key(tmp_path / "authority")
    own = Sshd(tmp_path / "own")
    try:
        key = make_key(tmp_path / "user")
        line = f"cert-authority {Path(f'{authority}.pub').read_text()}"
        Path(f"{own.client_key}.pub").write_text(line)
        subprocess.run(
            ["ssh-keygen", "-q", "-s", str(authority), "-I", "t", "-n", own.user, f"{key}.pub"],
            check=True,
        )
        home.write("known_hosts", own.known)
        assert home.host("127.0.0.1", port=own.port, identity=str(key)).run("true").exit == 0
    finally:
        own.close()


def test_nobody_listens(home: Home) -> None:
    port = free_port()
    error = failure(home.host("127.0.0.1", port=port))
    assert error.what == f"[127.0.0.1]:{port} refused the connection"


def test_listener_that_never_speaks(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = failure(home.host("127.0.0.1", port=port, connect_timeout=0.5))
    assert error.what.startswith(f"[127.0.0.1]:{port} does not answer within 0.5 s")


def test_listener_that_is_no_ssh_server(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            peer, _ = web.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        error = failure(home.host("127.0.0.1", port=web.getsockname()[1]))
    assert error.what.startswith(f"no SSH connection to [127.0.0.1]:{web_port(error)}")


def web_port(error: FleetError) -> str:
    return error.what.split("]:")[1].split(":")[0]


def explained(error: Exception) -> str:
    login = Login("m1.lan", 22, "me", "m1.lan", ())
    return connection._explained(login, error, False).what


def test_name_that_does_not_resolve() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert explained(error) == "the name m1.lan cannot be resolved: Name or service not known"


def test_network_that_is_not_there() -> None:
    assert explained(OSError(113, "No route to host")) == "cannot reach m1.lan: No route to host"


def ready(home: Home, server: Sshd) -> SshHost:
    home.write("config", block("m1", server))
    home.write("known_hosts", server.known)
    return home.host()


def test_connection_killed_in_mid_run(home: Home, server: Sshd) -> None:
    host = ready(home, server)
    why = "connection to m1 lost: (the other side closed it|Connection reset by peer)"
    with pytest.raises(FleetError, match=why):
        host.run("echo before; kill -9 $PPID; sleep 60", input=bytes(4 << 20))
    assert host.run("echo again").out == "again\n"


def test_connection_killed_in_mid_conversation(home: Home, server: Sshd) -> None:
    talk = ready(home, server).converse("read -r word; kill -9 $PPID; sleep 60")
    talk.send(b"go\n")
    with pytest.raises(FleetError, match="connection to m1 lost"):
        talk.readline(30)
    with pytest.raises(FleetError, match="connection to m1 lost"):
        talk.finish(30)


def test_connection_killed_in_mid_stream(home: Home, server: Sshd) -> None:
    host = ready(home, server)
    session = int(host.run("echo $PPID").out)
    stream = host.stream("echo one; sleep 60")
    assert next(stream) == "one"
    os.kill(session, signal.SIGKILL)
    with pytest.raises(FleetError, match="connection to m1 lost"):
        next(stream)


def test_end_of_input_that_its_channel_s_end_overtakes(home: Home, server: Sshd) -> None:
    """As when one thread ends a channel's input while another closes it: sshd would hang up."""
    host = ready(home, server)
    session = host.run("echo $PPID").out
    channel = host._channel(host._connected())
    channel.exec_command("cat")
    with channel.lock:
        late = channel._send_eof()
    channel.close()
    assert host.run("echo $PPID").out == session
    channel.transport._send_user_message(late)
    assert host.run("echo $PPID").out == session


def test_shell_ended_by_a_signal_is_not_a_lost_connection(home: Home, server: Sshd) -> None:
    host = ready(home, server)
    assert host.run("kill -9 $$").exit in (137, 255)
    assert host.run("echo again").out == "again\n"


def test_one_connection_for_many_scripts(home: Home, server: Sshd) -> None:
    host = ready(home, server)
    host.connect()
    ports = {host.run("echo $SSH_CONNECTION").out for _ in range(3)}
    assert len(ports) == 1


def test_closed_host_connects_again(home: Home, server: Sshd) -> None:
    host = ready(home, server)
    host.close()
    assert host.run("echo a").out == "a\n"
    host.close()
    host.close()
    assert host.run("echo b").out == "b\n"


def test_no_delay_on_the_outermost_socket(home: Home, server: Sshd, gate: Sshd) -> None:
    home.write("config", block("m1", server, "ProxyJump gate") + block("gate", gate))
    home.write("known_hosts", server.known + gate.known)
    host = home.host()
    host.connect()
    assert host._connection is not None
    outer = host._connection.gateway.transport.sock
    assert outer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
