"""Fabric connections that verify every host key; nothing else opens SSH here."""

from __future__ import annotations

import logging
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import fabric
from paramiko import PKey, RejectPolicy, SSHClient, SSHConfig, Transport
from paramiko.ssh_exception import ChannelException, IncompatiblePeer, SSHException

from inferfleet.errors import FleetError
from inferfleet.hosts import keys
from inferfleet.hosts.config import Login
from inferfleet.hosts.login import KeyLogin

# Silence of the network after which a connection counts as lost, in seconds.
DEAD_AFTER = 30
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
# One pass over a packet encrypts and authenticates with GCM; CTR and a MAC take two.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)

# paramiko's threads log what they raise; without a handler Python would print it.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Wire(socket.socket):
    """A TCP socket that acknowledges at once, where the system (Linux) can do so.

    sshd leaves Nagle's algorithm on: after the login it sends two small packets and keeps the
    second until the first is acknowledged, which would take 40 ms. The system forgets the
    wish as soon as it likes, so it is repeated.
    """

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        if data and QUICKACK is not None:
            self.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        return data


class KnownHostsPolicy(RejectPolicy):
    """Rejects every host key but those known_hosts holds for this login.

    The client's own table stays empty, so paramiko asks here about every key.
    """

    def __init__(self, login: Login, jumps: str) -> None:
        self._login = login
        self._jumps = jumps
        self.known = keys.known_keys(login)

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:  # type: ignore[override]
        keys.judge(self._login, self.known, key.get_name(), key.asbytes(), self._jumps)


class StrictConnection(fabric.Connection):  # type: ignore[misc]
    """A fabric.Connection whose client is replaced before it can open anything.

    Fabric gives each connection a client that adds unknown host keys; this one's rejects them.
    It reads no configuration: the login says all, and the gateway is the hop before it.
    """

    def __init__(
        self,
        login: Login,
        gateway: StrictConnection | None,
        jumps: str,
        dial: Callable[[Login], socket.socket],
    ) -> None:
        """gateway: the hop before, None for the first, which dial makes the TCP connection of."""
        super().__init__(
            login.host,
            user=login.user,
            port=login.port,
            gateway=gateway or False,
            config=fabric.Config(ssh_config=SSHConfig(), lazy=True),
        )
        self.policy = KnownHostsPolicy(login, jumps)
        self.client = SSHClient()
        self.client.set_missing_host_key_policy(self.policy)
        self.login = login
        self._dial = dial
        self._proxy: subprocess.Popen[bytes] | None = None
        self.connect_kwargs = {
            "timeout": 3 * login.timeout,  # of the steps below together
            "banner_timeout": login.timeout,
            "channel_timeout": login.timeout,
            "transport_factory": self._transport,
            "auth_strategy": KeyLogin(login),
        }

    def derive_shorthand(self, host_string: str) -> dict[str, str | None]:
        """Take the host as it is: Fabric would split IPv6 addresses and user names off."""
        return {"user": None, "host": host_string, "port": None}

    def open(self) -> None:
        """Connect, verify, log in; FleetError says what went wrong where."""
        login = self.login
        try:
            if login.proxy_command:
                self.connect_kwargs["sock"], self._proxy = _proxy(login.proxy_command)
            elif not self.gateway:
                self.connect_kwargs["sock"] = wire(self._dial(login), login)
            super().open()
        except FleetError:
            self.client.close()
            raise
        except Exception as error:
            self.client.close()
            raise _explained(login, error, bool(self.gateway)) from None

    @property
    def ending(self) -> str:
        """Why an open connection ended, as far as this side saw it; "" when nobody said."""
        error = self.transport.saved_exception if self.transport else None
        if isinstance(error, EOFError):
            return "the other side closed it"
        if isinstance(error, OSError):
            return error.strerror or str(error)
        return str(error) if error else ""

    def close(self) -> None:
        """Close this connection and the hops that carry it."""
        super().close()
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None
        if self.gateway:
            self.gateway.close()

    def _transport(self, sock: Any, **options: Any) -> Transport:
        transport = Transport(sock, **options)
        transport.handshake_timeout = self.login.timeout
        security = transport.get_security_options()
        security.ciphers = [name for name in CIPHERS if name in security.ciphers]
        security.key_types = keys.preferred_types(self.policy.known, security.key_types)
        return transport


def dial(login: Login) -> socket.socket:
    """A TCP connection to where a login leads."""
    return socket.create_connection((login.host, login.port), timeout=login.timeout)


def chain(
    logins: tuple[Login, ...], dial: Callable[[Login], socket.socket] = dial
) -> StrictConnection:
    """The connection to the last login through all before it, not yet open."""
    connection: StrictConnection | None = None
    jumps: list[str] = []
    for login in logins:
        connection = StrictConnection(login, connection, ",".join(jumps), dial)
        jumps.append(f"{login.user}@{login.address}")
    if connection is None:
        raise ValueError("no login to connect to")
    return connection


def _proxy(command: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A ProxyCommand of ssh_config, and the socket that is its input and output."""
    ours, theirs = socket.socketpair()
    with theirs:
        end = theirs.fileno()
        process = subprocess.Popen(
            f"exec {command}", shell=True, stdin=end, stdout=end, start_new_session=True
        )
    return ours, process


def wire(plain: socket.socket, login: Login) -> socket.socket:
    """The same TCP connection, which sends at once and notices a dead peer."""
    sock = Wire(fileno=plain.detach())
    sock.settimeout(login.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", DEAD_AFTER // 2),
        ("TCP_KEEPINTVL", DEAD_AFTER // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", DEAD_AFTER * 1000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _explained(login: Login, error: Exception, through_hop: bool) -> FleetError:
    address = login.address
    if isinstance(error, socket.gaierror):
        return FleetError(
            f"the name {login.host} cannot be resolved: {error.strerror}",
            "check address in the machine file and HostName in ssh_config",
        )
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return FleetError(
            f"{address} does not answer within {login.timeout:g} s",
            "is the machine on, and does a firewall let the port through?",
        )
    if isinstance(error, ConnectionRefusedError):
        return FleetError(f"{address} refused the connection", "is sshd running on that port?")
    if isinstance(error, ChannelException) and through_hop:
        return FleetError(
            f"the jump host cannot reach {address}: {error.text}",
            "check the address as the jump host sees it",
        )
    if isinstance(error, IncompatiblePeer):
        return FleetError(f"{address} and this side share no algorithm: {error}")
    if isinstance(error, (SSHException, EOFError)):
        detail = str(error).split("\n")[0] or "end of the connection"
        return FleetError(
            f"no SSH connection to {address}: {detail}",
            "is it an SSH server, and is it not overloaded (MaxStartups)?",
        )
    if isinstance(error, OSError):
        return FleetError(f"cannot reach {address}: {error.strerror or error}")
    return FleetError(f"no SSH connection to {address}: {type(error).__name__}: {error}")
