from __future__ import annotations

from pathlib import Path

import pytest
from hostprep_machine import Machine, apply, ground, see, there_and_back, verdicts

from inferfleet.hostprep.facts import Answer, Facts, look_script
from inferfleet.hostprep.judge import look_for
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.kinds.system.timesync import Time
from inferfleet.hostprep.kinds.system.units import Units

NAME = "irqbalance.service"
SHOWN = Path(__file__).parents[2] / "cases" / "hostprep" / "systemctl-show-252.txt"


def test_a_real_systemctl_show_is_understood() -> None:
    answer = Answer(0, SHOWN.read_text().partition("\n")[2])
    found = unitstate.units(Facts(probes={unitstate.PROBE: answer}))
    assert found is not None
    ssh = found["sshd.service"]
    assert (ssh.name, ssh.active, ssh.enabled, ssh.type) == (
        "ssh.service", "active", "enabled", "notify")  # fmt: skip
    assert ssh.since > ssh.started > 0
    assert found["dev-hugepages.mount"].masked
    assert not found["nothing.service"].there
    assert "mnt-my\\x2ddata.mount" in found
    assert found["-.mount"].active == "active"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/mnt/huge", "mnt-huge.mount"),
        ("/mnt/my-data", r"mnt-my\x2ddata.mount"),
        ("/mnt/a b/c", r"mnt-a\x20b-c.mount"),
        ("/.hidden/d", r"\x2ehidden-d.mount"),
        ("/mnt/\u00e9", r"mnt-\xc3\xa9.mount"),
        ("/", "-.mount"),
    ],
)
def test_mount_points_become_the_names_that_systemd_demands(path: str, unit: str) -> None:
    assert unitstate.mount_unit(path) == unit


@pytest.mark.parametrize(
    ("active", "enabled", "value", "commands"),
    [
        ("inactive", "disabled", "running", ["enable", "start"]),
        ("active", "disabled", "running", ["enable"]),
        ("inactive", "enabled", "running", ["start"]),
        ("failed", "static", "running", ["start"]),
        ("active", "enabled-runtime", "running", ["enable"]),
        ("inactive", "masked", "running", ["unmask", "enable", "start"]),
        ("active", "enabled", "stopped", ["disable", "stop"]),
        ("inactive", "enabled", "stopped", ["disable"]),
        ("active", "disabled", "stopped", ["stop"]),
        ("active", "enabled", "masked", ["mask", "stop"]),
        ("inactive", "disabled", "masked", ["mask"]),
        ("active", "static", "masked", ["mask", "stop"]),
    ],
)
def test_a_unit_is_changed_and_brought_back(
    active: str, enabled: str, value: str, commands: list[str]
) -> None:
    machine = Machine()
    machine.unit(NAME, active, enabled)
    if active == "failed":
        machine.unit(NAME, "inactive", enabled)  # nothing can make a unit fail again
    if enabled == "enabled-runtime":
        apply(machine, Units(), ground(units={NAME: value}))
    else:
        trip = there_and_back(machine, Units(), ground(units={NAME: value}))
        assert trip.verdicts() == {f"units.{NAME}": "ok"}
    done = [line.split()[2] for line in machine.ran]
    assert done[: len(commands)] == commands


@pytest.mark.parametrize(
    ("active", "enabled", "value"),
    [
        ("active", "enabled", "running"),
        ("active", "static", "running"),
        ("active", "generated", "running"),
        ("inactive", "disabled", "stopped"),
        ("failed", "disabled", "stopped"),
        ("inactive", "masked", "stopped"),
        ("inactive", "masked", "masked"),
    ],
)
def test_a_unit_as_wanted_is_left_alone(active: str, enabled: str, value: str) -> None:
    machine = Machine()
    machine.unit(NAME, active, enabled)
    prepared = see(machine, Units(), ground(units={NAME: value}))
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


def test_a_oneshot_that_has_done_its_work_counts_as_running() -> None:
    machine = Machine()
    done = {"Type": "oneshot", "Result": "success", "ExecMainStartTimestampMonotonic": "7"}
    machine.unit(NAME, "inactive", "enabled", **done)
    assert verdicts(machine, Units(), ground(units={NAME: "running"})) == {f"units.{NAME}": "ok"}
    machine.unit(NAME, "inactive", "enabled", **done | {"Result": "exit-code"})
    assert see(machine, Units(), ground(units={NAME: "running"})).changes != ()


@pytest.mark.parametrize(
    ("setup", "value", "verdict", "words"),
    [
        ({}, "running", "absent", "install the package"),
        ({}, "stopped", "ok", ""),
        ({}, "masked", "ok", ""),
        ({"enabled": "static"}, "stopped", "advice", "want it masked"),
        ({"enabled": "enabled", "own": "symbolic link"}, "stopped", "advice", "is a link"),
        ({"enabled": "linked", "own": "symbolic link"}, "running", "advice", "is a link"),
        ({"enabled": "enabled", "own": "regular file"}, "masked", "advice", "in the way of a mask"),
        ({"enabled": "enabled", "load": "bad-setting"}, "running", "advice", "bad-setting"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_tried(
    setup: dict[str, str], value: str, verdict: str, words: str
) -> None:
    machine = Machine()
    if setup:
        more = {"LoadState": setup["load"]} if "load" in setup else {}
        machine.unit(NAME, "active", setup["enabled"], **more)
    if "own" in setup:
        machine.kinds[f"/etc/systemd/system/{NAME}"] = setup["own"]
    prepared = see(machine, Units(), ground(units={NAME: value}))
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert words in prepared.findings[0].remedy
    assert prepared.changes == ()


def test_a_mask_may_hide_that_there_is_no_unit() -> None:
    machine = clock("no", timesyncd=("inactive", "masked"))
    machine.kinds.clear()
    wanted = ground(units={TIMESYNCD: "running"}, time={"synchronized": True})
    for kind in (Units(), Time()):
        prepared = see(machine, kind, wanted)
        assert (prepared.findings[0].verdict, prepared.changes) == ("absent", ())


def test_without_systemd_nothing_can_be_told() -> None:
    machine = Machine(absent={"systemctl"})
    assert verdicts(machine, Units(), ground(units={NAME: "running"})) == {
        f"units.{NAME}": "unknown"
    }


def test_an_alias_is_changed_by_its_own_name() -> None:
    machine = Machine()
    machine.unit("ssh.service", "active", "enabled", Names="ssh.service sshd.service")
    trip = there_and_back(machine, Units(), ground(units={"sshd.service": "stopped"}))
    assert trip.verdicts() == {"units.sshd.service": "ok"}
    assert "sshd" not in " ".join(machine.ran)


def test_a_mask_that_hides_an_enabled_unit_is_put_back_over_it() -> None:
    machine = Machine()
    machine.unit(NAME, "inactive", "masked")
    machine.units[NAME]["hidden"] = "enabled"
    machine.kinds[f"/etc/systemd/system/multi-user.target.wants/{NAME}"] = "symbolic link"
    apply(machine, Units(), ground(units={NAME: "running"}))
    assert [line.split()[2] for line in machine.ran] == ["unmask", "start"]


def test_all_kinds_ask_for_their_units_in_one_probe() -> None:
    wanted = ground(units={NAME: "running"}, time={"synchronized": True}, mounts={"/mnt/h": {}})
    look = look_for(wanted, {"units": Units(), "time": Time()})
    assert {NAME, "mnt-h.mount", "chrony.service"} <= set(look.probes[unitstate.PROBE])
    assert look_script(look).count("systemctl show") == 1


TIMESYNCD, CHRONY = "systemd-timesyncd.service", "chrony.service"
SYNC = ground(time={"synchronized": True})


def clock(synchronized: str = "yes", **units: tuple[str, str]) -> Machine:
    machine = Machine(files={"/proc/uptime": "5000.10 900.0\n"}, synchronized=synchronized)
    for name, (active, enabled) in units.items():
        machine.unit({"timesyncd": TIMESYNCD, "chrony": CHRONY}[name], active, enabled)
    return machine


@pytest.mark.parametrize(
    ("machine", "verdict"),
    [
        (clock(timesyncd=("active", "enabled")), "ok"),
        (clock(chrony=("active", "enabled"), timesyncd=("inactive", "masked")), "ok"),
        (clock("no", chrony=("active", "enabled")), "advice"),
        (clock(), "absent"),
        (clock("", chrony=("active", "enabled")), "unknown"),
    ],
)
def test_the_clock_is_judged(machine: Machine, verdict: str) -> None:
    prepared = see(machine, Time(), SYNC)
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert prepared.changes == ()


@pytest.mark.parametrize(
    ("machine", "started"),
    [
        (clock(timesyncd=("inactive", "disabled")), TIMESYNCD),
        (clock(timesyncd=("inactive", "masked")), TIMESYNCD),
        (clock(timesyncd=("inactive", "masked"), chrony=("inactive", "disabled")), CHRONY),
        (clock(chrony=("active", "disabled")), CHRONY),
    ],
)
def test_one_clock_service_is_started_and_stopped_again(machine: Machine, started: str) -> None:
    trip = there_and_back(machine, Time(), SYNC)
    assert trip.verdicts() == {"time.synchronized": "ok"}
    assert {line.split()[-1] for line in machine.ran} == {started}


def test_a_clock_service_that_was_just_started_is_given_time() -> None:
    machine = clock("no", timesyncd=("active", "enabled"))
    machine.units[TIMESYNCD]["ActiveEnterTimestampMonotonic"] = str(4990 * 10**6)
    finding = see(machine, Time(), SYNC).findings[0]
    assert (finding.verdict, finding.remedy) == (
        "unknown", f"{TIMESYNCD} was started 10 s ago: look again later")  # fmt: skip


def test_chrony_that_does_not_tell_the_kernel_is_asked_itself() -> None:
    machine = clock("no", chrony=("active", "enabled"))
    machine.chrony = "Reference ID    : 7F7F0101 ()\nLeap status     : Normal"
    assert verdicts(machine, Time(), SYNC) == {"time.synchronized": "ok"}
    machine.chrony = "Leap status     : Not synchronised"
    assert verdicts(machine, Time(), SYNC) == {"time.synchronized": "advice"}


def test_a_container_has_no_clock_of_its_own() -> None:
    machine = clock("no", timesyncd=("inactive", "disabled"))
    machine.files["/run/systemd/container"] = "docker\n"
    prepared = see(machine, Time(), SYNC)
    assert prepared.findings[0].verdict == "unsupported"
    assert prepared.changes == ()
    assert see(machine, Time(), ground(time={"synchronized": False})).findings[0].verdict == "ok"
