"""Rendered files read back by the programs they are for, with nothing on standard error."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import render_cases

from inferfleet.release import Release
from inferfleet.render import write_release

NASTY = [
    "plain", "a b", "it's", 'say "x"', "$HOME ${HOME} $$ ${X:-y} ${X:?z}", "back\\slash \\n \\$x",
    "two\nlines", "a\rb\tc", " # not a comment", " padded ", "key: value", "- item", "{a: b}",
    "!tag", "&a *a", "`id` $(id)", "%h %% %", "no", "0600", "22:22", "~", "null",
    "\u2028\u00e9\x85",
    "\x01\x1f\x7f", "\U0001f600\ufeff", "end\\", "<<EOF", "'", '"', "", "{{ x }}{% raw %}",
    "privileged: true\n    privileged: true",
]  # fmt: skip


def _compose() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return done.returncode == 0


needs_compose = pytest.mark.skipif(not _compose(), reason="docker compose is not installed")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def _config(release: Release, folder: Path) -> dict[str, dict[str, object]]:
    write_release(release, folder)
    done = subprocess.run(
        ["docker", "compose", "-f", str(folder / "compose.yaml"), "config", "--format", "json"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    services: dict[str, dict[str, object]] = json.loads(done.stdout)["services"]
    return services


def _undouble(value: object) -> object:
    # config prints $ doubled, ready to be read again.
    return value.replace("$$", "$") if isinstance(value, str) else value


@needs_compose
@pytest.mark.parametrize(
    "case", [name for name in render_cases.NAMES if name in ("spark", "workstation")]
)
def test_compose_accepts_every_project(case: str, tmp_path: Path) -> None:
    release = render_cases.render_case(case)
    services = _config(release, tmp_path)
    assert services.keys() == {unit.service for unit in release.units.values()}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["ports"][0]["host_ip"] in ("127.0.0.1", "::1")  # type: ignore[index]


@needs_compose
def test_any_text_reaches_the_container(tmp_path: Path) -> None:
    """Through environment, flags and secrets, one run for all of them."""
    names = {f"V{index}": text for index, text in enumerate(NASTY)}
    secrets = {f"S{index}": text for index, text in enumerate(NASTY) if not text.startswith("\n")}
    fleet = render_cases.with_service(
        render_cases.fleet("spark"),
        "case-spark",
        "vllm-qwen3-32b-fp8",
        env=names,
        secrets=list(secrets),
        served_name=NASTY[4],
        options={"stop": ["x", *[text for text in NASTY if not text.startswith("-")]]},
    )
    from inferfleet.render import render
    from inferfleet.secrets import Secret

    release = render(fleet, "case-spark", {key: Secret(text) for key, text in secrets.items()})
    service = _config(release, tmp_path)["vllm-qwen3-32b-fp8"]
    environment = service["environment"]
    assert isinstance(environment, dict)
    for key, text in {**names, **secrets}.items():
        assert _undouble(environment[key]) == text, (key, text)
    command = service["command"]
    assert isinstance(command, list)
    words = [_undouble(word) for word in command]
    start = words.index("--stop")
    assert words[start + 1 :] == ["x", *[text for text in NASTY if not text.startswith("-")]]
    assert words[words.index("--served-model-name") + 1] == NASTY[4]


def _units(release: Release, folder: Path) -> list[Path]:
    write_release(release, folder)
    return sorted((folder / "systemd").glob("*.service"))


@needs_systemd
@pytest.mark.parametrize("nasty", [False, True])
def test_systemd_accepts_every_unit(nasty: bool, tmp_path: Path) -> None:
    fleet = render_cases.fleet("native")
    if nasty:
        printable = [text for text in NASTY if not any(char in text for char in "\x01\x85\r")]
        fleet = render_cases.with_service(
            fleet,
            "case-native",
            "vllm",
            env={f"V{index}": text for index, text in enumerate(printable)},
            options={f"o{index}": text for index, text in enumerate(NASTY)},
        )
    units = _units(render_cases.render_fleet(fleet, "case-native"), tmp_path)
    assert len(units) == 2
    for unit in units:
        verify = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
        )
        assert (verify.returncode, verify.stderr) == (0, "")
        security = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(unit)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert security.returncode == 0, security.stdout
