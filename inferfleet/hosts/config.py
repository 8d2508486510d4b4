"""What the user's ssh_config says about a machine and the hops on the way to it."""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from inferfleet.errors import FleetError
from inferfleet.hosts.configfile import Config

# ssh_config(5), UserKnownHostsFile and GlobalKnownHostsFile.
USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
# More hops than anybody has; beyond it they run in a circle.
MAX_HOPS = 16


@dataclass(frozen=True)
class Login:
    """Where and how to log in; every value is final.

    key_name: the name to look the host key up under. identities: configured key files, empty
    when the default ones count. agent: socket of the ssh agent, "" for none.
    """

    host: str
    port: int
    user: str
    key_name: str
    known_hosts: tuple[str, ...]
    identities: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    proxy_command: str = ""
    timeout: float = 10.0

    @property
    def address(self) -> str:
        """Host as known_hosts writes it: [host]:port unless the port is 22."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


@dataclass(frozen=True)
class Target:
    """A machine as the inventory or a jump list names it; None leaves it to ssh_config."""

    alias: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read [ssh://][user@]host[:port], with [] around an IPv6 address that has a port."""
        rest = text.strip().removeprefix("ssh://").rstrip("/")
        user, _, host = rest.rpartition("@")
        port = ""
        if host.startswith("["):
            host, _, port = host[1:].partition("]")
            port = port.removeprefix(":")
        elif host.count(":") == 1:
            host, _, port = host.partition(":")
        if not host or (port and not port.isdigit()):
            raise FleetError(f"{text!r} is not a jump host", "write user@host:port")
        return cls(host, user or None, int(port) if port else None)


@dataclass(frozen=True)
class Overrides:
    """What the caller fixes over ssh_config, for the target and all its hops."""

    timeout: float = 10.0
    known_hosts: str | None = None


def route(
    target: Target,
    config: Config,
    overrides: Overrides,
    *,
    jump: str | None = None,
    identity: str | None = None,
) -> tuple[Login, ...]:
    """Logins from the first hop to the target.

    jump: comma separated hops, "none" for a direct connection, None for ssh_config's ProxyJump.
    FleetError when hops run in a circle.
    """
    hops = _hops(target, config, jump, 0)
    logins = [login(hop, config, overrides) for hop in hops]
    last = login(target, config, overrides)
    if identity:
        path = os.path.expanduser(identity)
        last = replace(last, identities=(path, *last.identities))
    if logins:
        last = replace(last, proxy_command="")
        logins[1:] = [replace(hop, proxy_command="") for hop in logins[1:]]
    return (*logins, last)


def _hops(target: Target, config: Config, jump: str | None, depth: int) -> list[Target]:
    if jump is None:
        jump = _expand(config.lookup(target.alias).get("proxyjump", ""), _tokens(target, config))
    if not jump or jump.lower() == "none":
        return []
    if depth == MAX_HOPS:
        raise FleetError(f"the jump hosts of {target.alias} run in a circle", "see ProxyJump")
    chain = [Target.parse(hop) for hop in jump.split(",")]
    if target.alias in [hop.alias for hop in chain]:
        return []  # a ProxyJump under `Host *` matches the jump host too
    return [*_hops(chain[0], config, None, depth + 1), *chain]


def login(target: Target, config: Config, overrides: Overrides) -> Login:
    """Everything ssh_config says about one target."""
    found = config.lookup(target.alias)
    tokens = _tokens(target, config)
    host = tokens["%h"]
    if not tokens["%p"].isdigit() or not 0 < int(tokens["%p"]) < 65536:
        raise FleetError(f"{target.alias}: {tokens['%p']} is not a port", "see Port in ssh_config")
    port = int(tokens["%p"])
    address = host if port == 22 else f"[{host}]:{port}"
    user_files = found.get("userknownhostsfile", USER_KNOWN_HOSTS)
    if overrides.known_hosts is not None:
        user_files = shlex.quote(overrides.known_hosts)
    global_files = found.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS)
    identities = [_path(file, tokens) for file in found.get("identityfile", [])]
    proxy = found.get("proxycommand") or ""
    return Login(
        host=host,
        port=port,
        user=tokens["%r"],
        key_name=(found.get("hostkeyalias") or address).lower(),
        known_hosts=tuple(
            _path(file, tokens)
            for file in [*shlex.split(user_files), *shlex.split(global_files)]
            if file.lower() != "none"
        ),
        identities=tuple(file for file in identities if file.lower() != "none"),
        identities_only=found.get("identitiesonly", "no").lower() == "yes",
        agent=_agent(found, tokens),
        proxy_command=_expand(proxy, tokens),
        timeout=_seconds(found.get("connecttimeout"), overrides.timeout),
    )


def _agent(found: Mapping[str, str], tokens: dict[str, str]) -> str:
    socket = found.get("identityagent", "SSH_AUTH_SOCK")
    if socket == "none":
        return ""
    if socket == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if socket.startswith("$"):
        return os.environ.get(socket[1:], "")
    return _path(socket, tokens)


def _seconds(value: str | None, default: float) -> float:
    return float(value) if value and value.isdigit() and int(value) else default


def _tokens(target: Target, config: Config) -> dict[str, str]:
    found = config.lookup(target.alias)
    host = found["hostname"].replace("%h", target.alias)
    local = getpass.getuser()
    return {
        "%h": host,
        "%n": target.alias,
        "%p": str(target.port or found.get("port", "22")),
        "%r": target.user or found.get("user") or local,
        "%u": local,
        "%d": os.path.expanduser("~"),
        "%k": found.get("hostkeyalias") or target.alias,
        "%%": "%",
    }


def _expand(text: str, tokens: dict[str, str]) -> str:
    parts, rest = [], text
    while "%" in rest:
        before, _, after = rest.partition("%")
        parts += [before, tokens.get(f"%{after[:1]}", f"%{after[:1]}")]
        rest = after[1:]
    return "".join([*parts, rest])


def _path(text: str, tokens: dict[str, str]) -> str:
    return os.path.expanduser(_expand(text, tokens))
