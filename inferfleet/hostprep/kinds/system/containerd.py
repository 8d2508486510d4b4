"""containerd for Kubernetes: its own default configuration, with what a node needs edited in.

A configuration that somebody else wrote is never touched: then the lines it lacks are told.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Verdict, Wanted
from inferfleet.hostprep.steps import PutFile

CONFIG = "/etc/containerd/config.toml"
# containerd 2 reads these over its main file where that imports them.
DROP_INS = "/etc/containerd/conf.d/*.toml"
DEFAULT = "containerd-default"
NVIDIA = "/usr/bin/nvidia-container-runtime"
HEAD = (
    "# Made by inferbase from `containerd config default`; `invoke hostprep.rollback` brings back "
    "what was there.\n"
)
# The plugin that holds the runtimes, by version of the configuration: containerd 2.x, 1.x.
PLUGINS = {3: "io.containerd.cri.v1.runtime", 2: "io.containerd.grpc.v1.cri"}
_AFTER = ("systemctl", "restart", "containerd.service")
# As Docker's own package ships it: CRI off, nothing else.
_BARE = re.compile(r"\s*(#[^\n]*|disabled_plugins\s*=\s*\[\"cri\"\]|version\s*=\s*[23])?\s*")


class Containerd:
    """The kind `containerd`."""

    def look(self, ground: Ground) -> Look:
        if not any(wanted.value for wanted in ground.of("containerd")):
            return Look((CONFIG,))
        probes = {DEFAULT: ("containerd", "config", "default")}
        return Look((CONFIG, DROP_INS), probes, (NVIDIA,))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("containerd")
        asked = {wanted.key for wanted in settings if wanted.value}
        current = facts.text(CONFIG)
        if not asked:
            findings = tuple(Finding(w, "not asked for", "-", "ok") for w in settings)
            # Ours goes; containerd then uses its own defaults.
            gone = PutFile(CONFIG, None, after=_AFTER)
            return Judgement(findings, (gone,) if (current or "").startswith(HEAD) else ())
        trouble = _trouble(facts)
        if trouble:
            verdict, remedy = trouble
            return Judgement(tuple(Finding(w, "-", "-", verdict, remedy) for w in settings))
        default = facts.probe(DEFAULT).out.rstrip("\n") + "\n"
        nvidia = "nvidia-runtime" in asked and NVIDIA in facts.stats
        wanted_text = HEAD + edited(default, "systemd-cgroup" in asked, nvidia)
        ours = current is None or current.startswith(HEAD) or _is_default(current, default)
        judged = [_finding(w, facts, current, default, ours) for w in settings]
        files = (PutFile(CONFIG, wanted_text, after=_AFTER),) if ours else ()
        return Judgement(tuple(judged), files)


def edited(default: str, systemd_cgroup: bool, nvidia: bool) -> str:
    """The default configuration with the settings of a Kubernetes node in it.

    Raises ValueError for a configuration of another version than 2 and 3.
    """
    plugin = PLUGINS[_version(tomllib.loads(default))]
    text = default
    if systemd_cgroup:
        text = _set(text, f"{plugin}|containerd.runtimes.runc.options", "SystemdCgroup", "true")
    if nvidia:
        text = _set(text, f"{plugin}|containerd", "default_runtime_name", '"nvidia"')
        text = text.rstrip("\n") + "\n" + _nvidia_lines(plugin, systemd_cgroup)
    return text


def has(config: Mapping[str, Any], key: str) -> bool:
    """Whether a parsed configuration gives what the setting of this name asks for."""
    runtime = config.get("plugins", {}).get(PLUGINS.get(config.get("version", 0), ""), {})
    section = runtime.get("containerd", {})
    runtimes = section.get("runtimes", {})
    if "cri" in " ".join(map(str, config.get("disabled_plugins", []))):
        return False
    if key == "systemd-cgroup":
        return bool(runtimes.get("runc", {}).get("options", {}).get("SystemdCgroup"))
    return section.get("default_runtime_name") == "nvidia" and "nvidia" in runtimes


def _finding(
    wanted: Wanted, facts: Facts, current: str | None, default: str, ours: bool
) -> Finding:
    if not wanted.value:
        return Finding(wanted, "not asked for", "-", "ok")
    if wanted.key == "nvidia-runtime" and NVIDIA not in facts.stats:
        remedy = "install the NVIDIA Container Toolkit (package nvidia-container-toolkit)"
        return Finding(wanted, "-", "-", "absent", remedy)
    try:
        config = _merged(current if current is not None else default, facts)
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        return Finding(wanted, "-", "-", "advice", f"{CONFIG} cannot be read: {error}")
    found = has(config, wanted.key)
    words = "yes" if found else "no"
    if found and current is not None:
        return Finding(wanted, words, words, "ok")
    if ours:
        return Finding(wanted, words, "-", "differs")
    plugin = PLUGINS.get(config.get("version", 0))
    return Finding(wanted, words, words, "advice", _lines(plugin, wanted.key, config))


def _trouble(facts: Facts) -> tuple[Verdict, str] | None:
    """Why nothing can be made of a default configuration, if so."""
    if CONFIG in facts.closed:
        return "unknown", f"only root may read {CONFIG}"
    answer = facts.probe(DEFAULT)
    if answer.exit is None:
        return "absent", "install containerd (package containerd, or containerd.io)"
    try:
        edited(answer.out, True, True)
    except (tomllib.TOMLDecodeError, ValueError, KeyError) as error:
        said = answer.out.strip().splitlines()
        words = said[0] if said and not answer.good else str(error)
        return "unknown", f"`containerd config default` gives nothing to edit: {words[:200]}"
    return None


def _version(config: Mapping[str, Any]) -> int:
    version = config.get("version")
    if version not in PLUGINS:
        raise ValueError(f"a configuration of version {version}")
    return int(version)


def _is_default(current: str, default: str) -> bool:
    """Whether nobody has set anything: the default itself, or a package's bare file."""
    if all(_BARE.fullmatch(line) for line in current.splitlines()):
        return True
    try:
        return tomllib.loads(current) == tomllib.loads(default)
    except tomllib.TOMLDecodeError:
        return False


def _merged(text: str, facts: Facts) -> dict[str, Any]:
    config = tomllib.loads(text)
    if any(str(path).startswith("/etc/containerd/conf.d/") for path in config.get("imports", [])):
        for part in facts.matching(DROP_INS).values():
            config = _over(config, tomllib.loads(part))
    return config


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _set(text: str, section: str, key: str, value: str) -> str:
    """The text with `key = value` in a section, in place of its line or after its header.

    Raises ValueError when there is no such section.
    """
    plugin, _, rest = section.partition("|")
    header = re.compile(rf"\s*\[plugins\.[\"']{re.escape(plugin)}[\"']\.{re.escape(rest)}\]\s*")
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if header.fullmatch(line)), None)
    if start is None:
        raise ValueError(f"no section {section.replace('|', '.')}")
    end = next((n for n in range(start + 1, len(lines)) if lines[n].lstrip()[:1] == "["),
               len(lines))  # fmt: skip
    for number in range(start + 1, end):
        name, equals, _ = lines[number].partition("=")
        if equals and name.strip() == key:
            lines[number] = f"{name.rstrip()} = {value}"
            break
    else:
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        lines.insert(start + 1, f"{indent}  {key} = {value}")
    return "\n".join(lines) + "\n"


def _nvidia_lines(plugin: str, systemd_cgroup: bool) -> str:
    head = f'[plugins."{plugin}".containerd.runtimes.nvidia'
    cgroup = "  SystemdCgroup = true\n" if systemd_cgroup else ""
    return (
        f'\n{head}]\n  runtime_type = "io.containerd.runc.v2"\n'
        f'{head}.options]\n  BinaryName = "{NVIDIA}"\n{cgroup}'
    )


def _lines(plugin: str | None, key: str, config: Mapping[str, Any]) -> str:
    """The exact lines that a configuration of somebody else lacks."""
    if plugin is None:
        return f"{CONFIG} has version {config.get('version', 1)}: write it anew as version 2"
    head = f'[plugins."{plugin}".containerd'
    if key == "systemd-cgroup":
        body = f"{head}.runtimes.runc.options]\nSystemdCgroup = true"
    else:
        body = f'{head}]\ndefault_runtime_name = "nvidia"\n{_nvidia_lines(plugin, True).strip()}'
    disabled = [str(name) for name in config.get("disabled_plugins", []) if "cri" in str(name)]
    if disabled:
        body = f"take {', '.join(disabled)} out of disabled_plugins\n{body}"
    return f"{CONFIG} is not ours: put there, then `systemctl restart containerd`:\n{body}"
