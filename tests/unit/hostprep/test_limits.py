from __future__ import annotations

import pytest
from hostprep_machine import Machine, ground, see, there_and_back

from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.kinds.system import limits
from inferfleet.hostprep.kinds.system.limits import Limits

# As systemd 252 shows them on a Debian 12 test machine.
DEFAULTS = {
    "DefaultLimitNOFILE": "524288",
    "DefaultLimitNOFILESoft": "1024",
    "DefaultLimitMEMLOCK": "8388608",
    "DefaultLimitMEMLOCKSoft": "8388608",
}


class Host(Machine):
    """Its systemd reads its configuration when it starts anew."""

    def run(self, argv: tuple[str, ...]) -> None:
        if argv == ("systemctl", "daemon-reexec"):
            self.defaults = dict(DEFAULTS)
            for line in self.files.get(limits.SERVICES, "").splitlines():
                name, _, value = line.partition("=")
                if value:
                    soft, _, hard = value.partition(":")
                    self.defaults |= {name: hard, f"{name}Soft": soft}
        else:
            super().run(argv)


def host(**files: str) -> Host:
    return Host(files=files, defaults=dict(DEFAULTS))


@pytest.mark.parametrize(
    ("settings", "logins", "services"),
    [
        (
            {"memlock": "infinity"},
            ["* soft memlock unlimited", "* hard memlock unlimited",
             "root soft memlock unlimited", "root hard memlock unlimited"],
            "DefaultLimitMEMLOCK=infinity:infinity\n",
        ),
        (
            {"memlock": 1 << 40, "nofile": 65536},
            ["* soft memlock 1073741824", "* hard memlock 1073741824",
             "root soft memlock 1073741824", "root hard memlock 1073741824",
             "* soft nofile 65536", "* hard nofile 524288",
             "root soft nofile 65536", "root hard nofile 524288"],
            "DefaultLimitMEMLOCK=1099511627776:1099511627776\nDefaultLimitNOFILE=65536:524288\n",
        ),
    ],
)  # fmt: skip
def test_limits_are_raised_and_go_back(
    settings: dict[str, int | str], logins: list[str], services: str
) -> None:
    machine = host()
    trip = there_and_back(machine, Limits(), ground(limits=settings))
    assert trip.verdicts() == {f"limits.{key}": "ok" for key in settings}
    assert {file.path: file.content for file in trip.before.files} == {
        limits.LOGINS: HEAD + "".join(f"{line}\n" for line in logins),
        limits.SERVICES: f"{HEAD}[Manager]\n{services}",
    }
    assert machine.defaults == DEFAULTS


WANTED = ground(limits={"nofile": 65536})


def kept(**files: str) -> Host:
    machine = host(**files)
    machine.files |= {f.path: f.content or "" for f in see(machine, Limits(), WANTED).files}
    return machine


def test_limits_as_wanted_are_left_alone() -> None:
    machine = kept()
    machine.run(("systemctl", "daemon-reexec"))
    prepared = see(machine, Limits(), WANTED)
    assert [(f.live, f.verdict) for f in prepared.findings] == [("65536", "ok")]
    assert prepared.changes == ()


def test_a_manager_that_was_not_started_anew_is_told() -> None:
    assert see(kept(), Limits(), WANTED).findings[0].verdict == "pending"


def test_without_systemd_the_live_value_cannot_be_told() -> None:
    machine = kept()
    machine.defaults = {}
    machine.files |= {f.path: f.content or "" for f in see(machine, Limits(), WANTED).files}
    prepared = see(machine, Limits(), WANTED)
    assert (prepared.findings[0].verdict, prepared.changes) == ("unknown", ())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/systemd/system.conf.d/99-site.conf", "[Manager]\nDefaultLimitNOFILE=1024:4096\n"),
        ("/usr/lib/systemd/system.conf.d/zz.conf", "[Manager]\n DefaultLimitNOFILESoft = 9\n"),
        ("/etc/security/limits.d/99-site.conf", "#\n*  -  nofile 4096\n"),
    ],
)
def test_a_later_file_that_sets_the_same_is_named(path: str, text: str) -> None:
    finding = see(kept(**{path: text}), Limits(), WANTED).findings[0]
    assert (finding.verdict, path in finding.remedy) == ("overridden", True)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/systemd/system.conf.d/10-site.conf", "[Manager]\nDefaultLimitNOFILE=1024:4096\n"),
        ("/etc/systemd/system.conf.d/99-site.conf", "[Manager]\n#DefaultLimitNOFILE=9\n"),
        ("/etc/security/limits.d/99-site.conf", "*  -  nproc 4096\n@audio - nofile 9\n"),
    ],
)
def test_what_does_not_win_does_not_matter(path: str, text: str) -> None:
    assert see(kept(**{path: text}), Limits(), WANTED).findings[0].verdict == "pending"


def test_files_of_an_earlier_run_go_when_nothing_is_wanted() -> None:
    there_and_back(kept(), Limits(), ground())
