"""The kind containerd: its own default edited, in both layouts; what others wrote is left."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from inferfleet.hostprep.facts import Answer, Facts, Stat
from inferfleet.hostprep.kinds.system.containerd import (
    CONFIG,
    DEFAULT,
    HEAD,
    NVIDIA,
    Containerd,
    edited,
)
from inferfleet.hostprep.setting import Ground, Judgement, Wanted

CASES = Path(__file__).parents[2] / "cases" / "hostprep"
DEFAULTS = {
    version: (CASES / f"containerd-{version}-default.txt").read_text().partition("\n")[2]
    for version in ("1.6", "2.1")
}
BOTH = ("systemd-cgroup", "nvidia-runtime")
PLUGIN = {"1.6": "io.containerd.grpc.v1.cri", "2.1": "io.containerd.cri.v1.runtime"}
VERSIONS = pytest.mark.parametrize("version", ["1.6", "2.1"])


def ground(*keys: str) -> Ground:
    return Ground(tuple(Wanted("containerd", key, True) for key in keys))


def facts(version: str, current: str | None = None, nvidia: bool = True, **files: str) -> Facts:
    found = ({CONFIG: current} if current is not None else {}) | files
    stats = {NVIDIA: Stat("regular file", "755", "root", "root", "1")} if nvidia else {}
    return Facts(found, probes={DEFAULT: Answer(0, DEFAULTS[version].rstrip("\n"))}, stats=stats)


def verdicts(judged: Judgement) -> dict[str, str]:
    return {finding.wanted.key: finding.verdict for finding in judged.findings}


def text(judged: Judgement) -> str:
    (file,) = judged.files
    assert file.path == CONFIG
    assert file.after == ("systemctl", "restart", "containerd.service")
    return file.content or ""


def runtime(config: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(config)["plugins"][PLUGIN[version]]["containerd"]
    return found


@VERSIONS
def test_the_default_with_a_few_lines_changed(version: str) -> None:
    judged = Containerd().judge(ground(*BOTH), facts(version))
    assert verdicts(judged) == dict.fromkeys(BOTH, "differs")
    config = text(judged)
    section = runtime(config, version)
    assert section["default_runtime_name"] == "nvidia"
    assert section["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
    assert section["runtimes"]["nvidia"] == {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"BinaryName": NVIDIA, "SystemdCgroup": True},
    }
    # Nothing else of the default is lost or changed.
    wanted, default = tomllib.loads(config), tomllib.loads(DEFAULTS[version])
    section, old = runtime(config, version), runtime(DEFAULTS[version], version)
    section["runtimes"].pop("nvidia")
    section["default_runtime_name"] = old["default_runtime_name"]
    section["runtimes"]["runc"]["options"]["SystemdCgroup"] = False
    wanted["plugins"][PLUGIN[version]]["containerd"] = section
    assert wanted == default

    again = Containerd().judge(ground(*BOTH), facts(version, config))
    assert verdicts(again) == dict.fromkeys(BOTH, "ok")
    assert text(again) == config


@VERSIONS
def test_without_the_nvidia_runtime(version: str) -> None:
    config = text(Containerd().judge(ground("systemd-cgroup"), facts(version)))
    assert runtime(config, version)["default_runtime_name"] == "runc"
    missing = Containerd().judge(ground(*BOTH), facts(version, nvidia=False))
    assert verdicts(missing) == {"systemd-cgroup": "differs", "nvidia-runtime": "absent"}
    assert text(missing) == config


@pytest.mark.parametrize(
    "current",
    [
        DEFAULTS["1.6"],
        f"# a comment\n{DEFAULTS['1.6']}",
        '#   Copyright\n\ndisabled_plugins = ["cri"]\n\n#root = "/var/lib/containerd"\n',
        "version = 2\n",
        f"{HEAD}{DEFAULTS['1.6']}",
    ],
)
def test_what_nobody_has_set_is_replaced(current: str) -> None:
    judged = Containerd().judge(ground("systemd-cgroup"), facts("1.6", current))
    assert verdicts(judged) == {"systemd-cgroup": "differs"}
    assert text(judged).startswith(HEAD)
    assert tomllib.loads(text(judged))["disabled_plugins"] == []


@VERSIONS
def test_what_others_wrote_is_left_and_the_lines_are_told(version: str) -> None:
    own = DEFAULTS[version].replace("max_concurrent_downloads = 3", "max_concurrent_downloads = 9")
    judged = Containerd().judge(ground(*BOTH), facts(version, own))
    assert verdicts(judged) == dict.fromkeys(BOTH, "advice")
    assert judged.files == ()
    remedy = "\n".join(finding.remedy for finding in judged.findings)
    assert f'[plugins."{PLUGIN[version]}".containerd.runtimes.runc.options]' in remedy
    assert "SystemdCgroup = true" in remedy
    # With those lines it is as wanted, and still theirs.
    good = edited(own, systemd_cgroup=True, nvidia=True)
    again = Containerd().judge(ground(*BOTH), facts(version, good))
    assert verdicts(again) == dict.fromkeys(BOTH, "ok")
    assert again.files == ()


def test_cri_that_is_off_is_never_right() -> None:
    off = edited(DEFAULTS["1.6"], systemd_cgroup=True, nvidia=True)
    off = off.replace("disabled_plugins = []", 'disabled_plugins = ["cri"]')
    judged = Containerd().judge(ground("systemd-cgroup"), facts("1.6", off))
    assert verdicts(judged) == {"systemd-cgroup": "advice"}
    assert "take cri out of disabled_plugins" in judged.findings[0].remedy


def test_drop_ins_of_containerd_2_count_where_they_are_imported() -> None:
    part = (
        'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd]\n'
        'default_runtime_name = "nvidia"\n'
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]\n'
        'runtime_type = "io.containerd.runc.v2"\n'
    )
    own = DEFAULTS["2.1"].replace("oom_score = 0", "oom_score = -1")
    drop_in = {"/etc/containerd/conf.d/99-nvidia.toml": part}
    without = Containerd().judge(ground("nvidia-runtime"), facts("2.1", own, **drop_in))
    assert verdicts(without) == {"nvidia-runtime": "advice"}
    imports = own.replace("imports = []", "imports = ['/etc/containerd/conf.d/*.toml']")
    judged = Containerd().judge(ground("nvidia-runtime"), facts("2.1", imports, **drop_in))
    assert verdicts(judged) == {"nvidia-runtime": "ok"}


@pytest.mark.parametrize(
    ("seen", "verdict", "word"),
    [
        (Facts(), "absent", "install containerd"),
        (Facts(closed=frozenset([CONFIG])), "unknown", "only root"),
        (Facts(probes={DEFAULT: Answer(1, "boom: no memory")}), "unknown", "boom"),
        (Facts(probes={DEFAULT: Answer(0, "version = 4\n")}), "unknown", "version 4"),
        (Facts(probes={DEFAULT: Answer(0, "version = 2\n")}), "unknown", "no section"),
    ],
)
def test_faults(seen: Facts, verdict: str, word: str) -> None:
    judged = Containerd().judge(ground("systemd-cgroup"), seen)
    assert verdicts(judged) == {"systemd-cgroup": verdict}
    assert word in judged.findings[0].remedy
    assert judged.files == ()


def test_a_broken_file_is_left() -> None:
    judged = Containerd().judge(ground("systemd-cgroup"), facts("1.6", "version = [\nx"))
    assert verdicts(judged) == {"systemd-cgroup": "advice"}
    assert judged.files == ()


def test_nothing_wanted_takes_ours_away_and_no_other() -> None:
    assert Containerd().look(Ground()).probes == {}
    (file,) = Containerd().judge(Ground(), Facts({CONFIG: f"{HEAD}x"})).files
    assert file.content is None
    assert Containerd().judge(Ground(), Facts({CONFIG: "theirs"})).files == ()
    off = Ground((Wanted("containerd", "systemd-cgroup", False),))
    assert verdicts(Containerd().judge(off, Facts())) == {"systemd-cgroup": "ok"}
