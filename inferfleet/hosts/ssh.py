"""A machine reached over SSH: one connection, one channel for each script."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from paramiko import Channel
from paramiko.ssh_exception import SSHException

from inferfleet.errors import FleetError
from inferfleet.hosts import config, configfile, shell, terminal
from inferfleet.hosts.base import ScriptHost
from inferfleet.hosts.channel import orderly
from inferfleet.hosts.connection import StrictConnection, chain, dial
from inferfleet.hosts.early import Early
from inferfleet.hosts.forward import Peer, relay
from inferfleet.hosts.program import Program

CHUNK = 1 << 16
# ssh(1): exit status when the remote shell was ended by a signal.
SIGNALLED = 255
# How soon a session that was refused is asked for again.
BUSY_SECONDS = 0.05


@dataclass(frozen=True)
class Whereabouts:
    """Of a connected machine. host_key: as `type base64`."""

    host: str
    port: int
    user: str
    host_key: str


class SshHost(ScriptHost):
    """Runs scripts over SSH with Fabric; connects on first use, verifies every host key.

    address: host name, IP address or alias of ssh_config. jump: hops "user@host:port" or aliases,
    comma separated, "none" for a direct connection; default ProxyJump of ssh_config.
    ssh_config: a file read instead of ~/.ssh/config and /etc/ssh/ssh_config. connect_timeout:
    seconds for each step of a connection. identity: private key file tried first. known_hosts:
    a file read instead of the user's. sudo_password: asked only when sudo wants a password.
    early: connections already begun.

    `StrictHostKeyChecking no` changes nothing here. Several threads may use one host.
    """

    def __init__(
        self,
        name: str,
        address: str,
        user: str | None = None,
        port: int | None = None,
        jump: str | None = None,
        sudo_password: Callable[[], str] | None = None,
        ssh_config: str | None = None,
        connect_timeout: float = 10.0,
        identity: str | None = None,
        known_hosts: str | None = None,
        early: Early | None = None,
    ) -> None:
        super().__init__(name, sudo_password)
        self._target = config.Target(address, user, port)
        self._jump = jump
        self._ssh_config = ssh_config
        self._overrides = config.Overrides(connect_timeout, known_hosts)
        self._identity = identity
        self._early = early
        self._lock = threading.Lock()
        self._connection: StrictConnection | None = None

    def connect(self) -> None:
        """Open the connection unless it is open; a lost one is opened anew."""
        self._connected()

    def whereabouts(self) -> Whereabouts:
        """Where the open connection leads, and the host key that was verified there."""
        connection = self._connected()
        key = connection.transport.get_remote_server_key()
        login = connection.login
        return Whereabouts(
            login.host, login.port, login.user, f"{key.get_name()} {key.get_base64()}"
        )

    def close(self) -> None:
        """Close the connection; scripts still running on it see their input end."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def interact(self, script: str, *, sudo: bool = False) -> int:
        """Run a script in a pseudo-terminal joined to this one; its exit status."""
        connection = self._connected()
        channel = self._channel(connection)
        with terminal.joined(channel) as copy:
            self._execute(channel, shell.on_terminal(script, sudo=sudo))
            copy()
        return SshProgram(self.name, connection, channel).wait(None)

    @contextmanager
    def forward(self, port: int, local_port: int = 0, address: str = "127.0.0.1") -> Iterator[int]:
        """Carry connections from 127.0.0.1:local_port to address:port as the machine sees it."""
        self._connected()

        def connect() -> Peer:
            transport = self._connected().transport
            try:
                channel = transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0))
            except (SSHException, FleetError) as error:
                raise ConnectionError(str(error)) from None
            return orderly(channel)

        with relay(connect, local_port) as bound:
            yield bound

    def _start(self, line: str) -> Program:
        connection = self._connected()
        channel = self._channel(connection)
        self._execute(channel, line)
        return SshProgram(self.name, connection, channel)

    def _connected(self) -> StrictConnection:
        with self._lock:
            if self._connection is None or not self._connection.is_connected:
                if self._connection is not None:
                    self._connection.close()
                logins = config.route(
                    self._target,
                    configfile.load(self._ssh_config),
                    self._overrides,
                    jump=self._jump,
                    identity=self._identity,
                )
                connection = chain(logins, self._dial)
                try:
                    connection.open()
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
            return self._connection

    def _dial(self, login: config.Login) -> socket.socket:
        """A TCP connection to the first hop: the one begun early, or a new one."""
        if self._early is None:
            return dial(login)
        sock = self._early.take(self.name, login.host, login.port, login.timeout)
        if sock is None:
            sock = dial(login)
            self._early.remember(self.name, sock)
        return sock

    def _channel(self, connection: StrictConnection) -> Channel:
        """A new session; sshd allows ten at once (MaxSessions), so one may have to wait."""
        deadline = time.monotonic() + self._overrides.timeout
        while True:
            try:
                return orderly(connection.transport.open_session())
            except (SSHException, EOFError, OSError):
                # paramiko hands a refusal to one of the threads that were refused at a time,
                # so whether the connection lives is the only sure sign.
                if not connection.is_connected:
                    raise _lost(self.name, connection) from None
                if time.monotonic() > deadline:
                    raise FleetError(
                        f"{self.name} opens no more sessions",
                        "raise MaxSessions in its sshd_config, or do less at once",
                    ) from None
                time.sleep(BUSY_SECONDS)

    def _execute(self, channel: Channel, line: str) -> None:
        try:
            channel.exec_command(line)
        except (SSHException, EOFError, OSError):
            channel.close()
            raise FleetError(f"{self.name} refused to start a command or was lost") from None


class SshProgram:
    """A command on a channel."""

    def __init__(self, name: str, connection: StrictConnection, channel: Channel) -> None:
        self._name = name
        self._connection = connection
        self._channel = channel

    def write(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), CHUNK):  # sendall copies the rest for every packet
                self._channel.sendall(data[start : start + CHUNK])
        except (SSHException, EOFError) as error:
            raise ConnectionError(str(error)) from None

    def close_input(self) -> None:
        with suppress(OSError, EOFError, SSHException):
            self._channel.shutdown_write()

    def read_out(self) -> bytes:
        return self._channel.recv(CHUNK)

    def read_err(self) -> bytes:
        return self._channel.recv_stderr(CHUNK)

    def wait(self, timeout: float | None) -> int:
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError
        status = self._channel.exit_status
        self.kill()
        if status >= 0:
            return status
        # A dying connection ends its channels first and itself a moment later.
        self._connection.transport.join(0.5)
        if self._connection.is_connected:
            return SIGNALLED
        raise _lost(self._name, self._connection)

    def end(self) -> None:
        self.close_input()
        self.kill()

    def kill(self) -> None:
        with suppress(OSError, EOFError, SSHException):
            self._channel.close()


def _lost(name: str, connection: StrictConnection) -> FleetError:
    why = connection.ending
    return FleetError(
        f"connection to {name} lost{f': {why}' if why else ''}",
        "run the command again; it finds out what was done",
    )
