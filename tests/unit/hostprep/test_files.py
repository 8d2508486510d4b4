from __future__ import annotations

import pytest
from hostprep_machine import Machine, ground, see, there_and_back, verdicts

from inferfleet.hostprep.facts import look_script
from inferfleet.hostprep.judge import look_for
from inferfleet.hostprep.kinds.system.files import Files

PATH = "/etc/docker/daemon.json"


def wanted(path: str = PATH, content: str = "{}\n", mode: str = "0644", **more: list[str]):  # type: ignore[no-untyped-def]
    return ground(files={path: {"content": content, "mode": mode, "after": [], **more}})


def test_a_new_file_is_written_and_removed_again() -> None:
    trip = there_and_back(Machine(), Files(), wanted(after=["systemctl", "daemon-reload"]))
    assert trip.verdicts() == {f"files.{PATH}": "ok"}
    assert trip.before.files[0].after == ("systemctl", "daemon-reload")


def test_text_and_mode_are_changed_and_brought_back() -> None:
    machine = Machine(files={PATH: '{"debug": true}\n'}, modes={PATH: "600"})
    trip = there_and_back(machine, Files(), wanted())
    assert trip.before.findings[0].live == "other text, mode 600"
    assert trip.verdicts() == {f"files.{PATH}": "ok"}
    assert machine.ran == [f"chmod 0644 -- {PATH}", f"chmod 0600 -- {PATH}"]


@pytest.mark.parametrize("content", ["{}\n", "{}", "", "\n", "a\n\n", "\ta\r\nb"])
def test_a_file_as_wanted_is_left_alone(content: str) -> None:
    text = content if content.endswith("\n") or not content else f"{content}\n"
    machine = Machine(files={PATH: text}, modes={PATH: "644"})
    prepared = see(machine, Files(), wanted(content=content))
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


@pytest.mark.parametrize("kind", ["symbolic link", "directory", "character special file"])
def test_what_is_no_file_is_never_replaced(kind: str) -> None:
    prepared = see(Machine(kinds={PATH: kind}), Files(), wanted())
    assert prepared.findings[0].verdict == "advice"
    assert kind in prepared.findings[0].remedy
    assert prepared.changes == ()


def test_a_closed_file_cannot_be_told() -> None:
    machine = Machine(files={PATH: "secret\n"}, closed={PATH}, modes={PATH: "644"})
    assert verdicts(machine, Files(), wanted()) == {f"files.{PATH}": "unknown"}
    assert see(machine, Files(), wanted()).changes == ()


@pytest.mark.parametrize("path", ["/etc/a b.conf", "/etc/x[1].conf", "/etc/*", "/etc/$HOME'`;é"])
def test_any_path_is_looked_at_as_itself(path: str) -> None:
    machine = Machine(files={"/etc/passwd": "root\n", "/etc/x1.conf": "other\n"})
    there_and_back(machine, Files(), wanted(path=path))
    script = look_script(look_for(wanted(path=path), {"files": Files()}))
    assert "\nfiles /etc/" in script
