"""Proving who we are to a server: keys from files and from the ssh agent."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paramiko import PKey, Transport
from paramiko.agent import AgentSSH
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from inferfleet.errors import FleetError
from inferfleet.hosts.config import Login

# ssh_config(5), IdentityFile, those paramiko can read; the cheapest to sign with comes first.
DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


@dataclass(frozen=True)
class Candidate:
    """A key to offer; load raises OSError, ValueError or FleetError."""

    label: str
    load: Callable[[], PKey]


class KeyLogin:
    """Authenticates a transport; takes the place of paramiko's own order of attempts.

    Configured key files come first, then the agent's keys (with IdentitiesOnly those whose
    public half is a configured file), then the default files when none is configured. A key
    file that has a passphrase is left to the agent.
    """

    def __init__(self, login: Login) -> None:
        self._login = login

    def authenticate(self, transport: Transport) -> list[str]:
        """Log in or raise FleetError with every key that was tried."""
        login = self._login
        tried, problems, accepts = [], [], ""
        for candidate in self._candidates():
            try:
                key = candidate.load()
            except FleetError as error:
                problems.append(error.what)
                continue
            except (OSError, ValueError, SSHException) as error:
                problems.append(f"{candidate.label} cannot be used: {_reason(error)}")
                continue
            tried.append(candidate.label)
            try:
                more = transport.auth_publickey(login.user, key)
            except BadAuthenticationType as error:
                accepts = ", ".join(error.allowed_types)
                break
            except AuthenticationException:
                if not transport.is_active():
                    break
                continue
            if more:
                accepts = f"{', '.join(more)} besides a key"
                break
            return []
        raise FleetError(
            f"{login.address} refused the login of {login.user}"
            f" ({'tried ' + ', '.join(tried) if tried else 'there is no key to offer'}"
            + (f"; it accepts {accepts}" if accepts else "")
            + "".join(f"; {problem}" for problem in problems)
            + ")",
            _hint(login, problems),
        )

    def _candidates(self) -> Iterator[Candidate]:
        login = self._login
        for path in login.identities:
            yield Candidate(path, lambda path=path: _from_file(path))  # type: ignore[misc]
        yield from self._from_agent()
        if not login.identities:
            for name in DEFAULT_IDENTITIES:
                path = os.path.expanduser(name)
                if os.path.exists(path):
                    yield Candidate(path, lambda path=path: _from_file(path))  # type: ignore[misc]

    def _from_agent(self) -> Iterator[Candidate]:
        login = self._login
        if not login.agent:
            return
        wanted = {_public_half(path) for path in login.identities} - {b""}
        try:
            agent = _Agent(login.agent)
        except (OSError, SSHException):
            return
        try:
            keys = agent.get_keys()
            for key in sorted(keys, key=lambda key: key.asbytes() not in wanted):
                if key.asbytes() in wanted or not login.identities_only:
                    label = f"agent key {getattr(key, 'comment', '') or key.get_name()}"
                    yield Candidate(label, lambda key=key: key)  # type: ignore[misc]
        finally:
            agent.close()


class _Agent(AgentSSH):
    """The agent behind one socket; paramiko's Agent takes the path from the environment alone."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._connect(self._socket)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._socket.close()


def _from_file(path: str) -> PKey:
    try:
        return PKey.from_path(path)
    except TypeError:
        raise FleetError(f"{path} has a passphrase and the agent does not hold it") from None


def _public_half(path: str) -> bytes:
    """The public key beside a private key file, b"" when there is none."""
    try:
        with open(f"{path.removesuffix('.pub')}.pub", encoding="utf-8") as file:
            return base64.b64decode(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return b""


def _reason(error: Exception) -> str:
    if isinstance(error, UnknownKeyType):
        return "unknown type of key"
    return getattr(error, "strerror", None) or "not a private key"


def _hint(login: Login, problems: list[str]) -> str:
    locked = next((text.split()[0] for text in problems if "has a passphrase" in text), "")
    if locked:
        return f"run: ssh-add {locked}"
    return f"let it know your key: ssh-copy-id -p {login.port} {login.user}@{login.host}"
