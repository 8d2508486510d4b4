"""ssh_config -> logins, without a connection."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest
from tools import needs

from inferfleet.errors import FleetError
from inferfleet.hosts.config import Login, Overrides, Target, route
from inferfleet.hosts.configfile import load

ME = getpass.getuser()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def resolve(
    home: Path,
    text: str,
    target: str = "m1",
    *,
    jump: str | None = None,
    known_hosts: str | None = None,
    identity: str | None = None,
) -> tuple[Login, ...]:
    (home / ".ssh/config").write_text(text)
    parsed = load(str(home / ".ssh/config"))
    overrides = Overrides(10, known_hosts)
    return route(Target.parse(target), parsed, overrides, jump=jump, identity=identity)


def ways(logins: tuple[Login, ...]) -> list[str]:
    return [f"{login.user}@{login.address}" for login in logins]


def test_without_configuration(home: Path) -> None:
    (login,) = resolve(home, "")
    assert (login.host, login.port, login.user, login.key_name) == ("m1", 22, ME, "m1")
    assert login.known_hosts == (
        f"{home}/.ssh/known_hosts",
        f"{home}/.ssh/known_hosts2",
        "/etc/ssh/ssh_known_hosts",
        "/etc/ssh/ssh_known_hosts2",
    )
    assert (login.identities, login.identities_only, login.agent) == ((), False, "")


def test_everything_from_configuration(home: Path) -> None:
    (login,) = resolve(
        home,
        "Host m1\n HostName %h.Example.org\n User nvidia\n Port=2222\n"
        " IdentityFile ~/.ssh/%r_%h\n IdentityFile /keys/100%%\n IdentitiesOnly yes\n"
        " UserKnownHostsFile ~/a %d/b\n GlobalKnownHostsFile none\n ConnectTimeout 3\n"
        " IdentityAgent ~/agent.sock\nHost *\n User other\n Port 1\n",
    )
    assert (login.host, login.port, login.user) == ("m1.Example.org", 2222, "nvidia")
    assert login.key_name == "[m1.example.org]:2222"
    assert login.identities == (f"{home}/.ssh/nvidia_m1.Example.org", "/keys/100%")
    assert login.identities_only
    assert login.known_hosts == (f"{home}/a", f"{home}/b")
    assert login.timeout == 3
    assert login.agent == f"{home}/agent.sock"


def test_arguments_win(home: Path) -> None:
    text = "Host m1\n User nvidia\n Port 2222\n IdentityFile /k\n UserKnownHostsFile /x\n"
    (login,) = resolve(home, text, "me@m1:23", known_hosts="/my hosts", identity="~/mine")
    assert ways((login,)) == ["me@[m1]:23"]
    assert login.identities == (f"{home}/mine", "/k")
    assert login.known_hosts[0] == "/my hosts"


def test_host_key_alias_stands_without_port(home: Path) -> None:
    (login,) = resolve(home, "Host m1\n Port 2222\n HostKeyAlias Rack7\n")
    assert login.key_name == "rack7"


JUMPS = {
    "none": ("", None, []),
    "one": ("Host m1\n ProxyJump b@gate:2200\n", None, ["b@[gate]:2200"]),
    "named none": ("Host m1\n ProxyJump none\nHost *\n ProxyJump gate\n", None, []),
    "argument": ("Host m1\n ProxyJump x\n", "b@other", ["b@other"]),
    "argument none": ("Host m1\n ProxyJump x\n", "none", []),
    "alias": (
        "Host m1\n ProxyJump gate\nHost gate\n HostName 10.0.0.1\n User g\n Port 24\n",
        None,
        ["g@[10.0.0.1]:24"],
    ),
    "several": ("", "a@one,b@two:3,ssh://c@[::1]:4", ["a@one", "b@[two]:3", "c@[::1]:4"]),
    "nested": ("Host m1\n ProxyJump b\nHost b\n ProxyJump a\n", None, [f"{ME}@a", f"{ME}@b"]),
    "first hop's own": (
        "Host one\n ProxyJump zero\n",
        "one,two",
        [f"{ME}@{h}" for h in ("zero", "one", "two")],
    ),
    "matches the hop too": ("Host *\n ProxyJump gate\n", None, [f"{ME}@gate"]),
}


@pytest.mark.parametrize("case", JUMPS)
def test_jumps(home: Path, case: str) -> None:
    text, jump, expected = JUMPS[case]
    assert ways(resolve(home, text, jump=jump)) == [*expected, f"{ME}@m1"]


def test_jumps_in_a_circle(home: Path) -> None:
    with pytest.raises(FleetError, match="run in a circle"):
        resolve(home, "Host m1\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n")


def test_proxy_command_is_for_the_first_connection_only(home: Path) -> None:
    text = "Host *\n ProxyCommand nc %h %p\n"
    assert [hop.proxy_command for hop in resolve(home, text)] == ["nc m1 22"]
    assert [hop.proxy_command for hop in resolve(home, text, jump="a,b")] == ["nc a 22", "", ""]


def test_include_keeps_the_block_it_stands_in(home: Path) -> None:
    (home / ".ssh/conf.d").mkdir()
    (home / ".ssh/conf.d/a.conf").write_text("Host m1\n Port 23\nHost m2\n Port 24\n")
    (login,) = resolve(home, "Include conf.d/*.conf\nUser everyone\n")
    assert ways((login,)) == ["everyone@[m1]:23"]


def test_circular_include_ends(home: Path) -> None:
    with pytest.raises(FleetError, match="Include nests deeper than 16"):
        resolve(home, "Include config\n")


def test_bad_port(home: Path) -> None:
    with pytest.raises(FleetError, match="m1: x is not a port"):
        resolve(home, "Port x\n")


def test_bad_jump(home: Path) -> None:
    with pytest.raises(FleetError, match="is not a jump host"):
        resolve(home, "", jump="a:b")


def test_missing_file(home: Path) -> None:
    with pytest.raises(FleetError, match="there is no ssh configuration"):
        load(str(home / "nowhere"))


def test_parsed_once_until_changed(home: Path) -> None:
    path = home / ".ssh/config"
    path.write_text("Port 1\n")
    first = load(str(path))
    assert load(str(path)) is first
    path.write_text("Port 2\n")
    os.utime(path, ns=(1, 1))
    assert load(str(path)) is not first


@needs("ssh")
def test_same_answers_as_openssh(home: Path) -> None:
    text = (
        "Host m? !m9\n HostName %h.lan\n Port 2022\nMatch originalhost m1\n User matched\n"
        "Host *\n User everyone\n UserKnownHostsFile /a /b\n IdentityFile /k1\n"
    )
    for name in ("m1", "m2", "m9", "other"):
        (login,) = resolve(home, text, name)
        shown = subprocess.run(
            ["ssh", "-F", str(home / ".ssh/config"), "-G", name],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        said = dict(line.split(" ", 1) for line in shown.splitlines())
        assert (login.host, str(login.port), login.user) == (
            said["hostname"],
            said["port"],
            said["user"],
        )
        assert " ".join(login.known_hosts[:2]) == said["userknownhostsfile"]
        assert login.identities == (said["identityfile"],)
