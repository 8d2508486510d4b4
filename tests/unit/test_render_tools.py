"""Rendered files read back by the programs they are for, with nothing on standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import render_cases

from inferfleet.release.release import Release
from inferfleet.render.render import render, write_release
from inferfleet.schema.machine import Volume
from inferfleet.secrets import Secret

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
    "case",
    [name for name in render_cases.NAMES if name in ("engines", "lab", "spark", "workstation")],
)
def test_compose_accepts_every_project(case: str, tmp_path: Path) -> None:
    release = render_cases.render_case(case)
    services = _config(release, tmp_path)
    assert services.keys() == {unit.service for unit in release.units.values()}
    for name, service in services.items():
        assert service.get("read_only", False) is (name != "tgi")  # see services/tgi.yaml
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        if service.get("network_mode") == "host":
            assert "ports" not in service
            continue
        for port in service["ports"]:  # type: ignore[attr-defined]
            assert port["host_ip"] in ("127.0.0.1", "::1")


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
@pytest.mark.parametrize(
    ("case", "nasty", "count"), [("native", False, 2), ("native", True, 2), ("notebooks", False, 4)]
)
def test_systemd_accepts_every_unit(case: str, nasty: bool, count: int, tmp_path: Path) -> None:
    fleet = render_cases.fleet(case)
    if nasty:
        printable = [text for text in NASTY if not any(char in text for char in "\x01\x85\r")]
        fleet = render_cases.with_service(
            fleet,
            "case-native",
            "vllm",
            env={f"V{index}": text for index, text in enumerate(printable)},
            options={f"o{index}": text for index, text in enumerate(NASTY)},
        )
    units = _units(render_cases.render_fleet(fleet, f"case-{case}"), tmp_path)
    assert len(units) == count
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


SYSTEMD = Path("/lib/systemd/systemd")
_ESCAPES = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}


def _printed_words(line: bytes) -> list[str]:
    """The words of a command line as systemd prints it: C escapes inside double quotes."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if len(code) == 3 else _ESCAPES.get(code, code)

    words = re.findall(rb'"((?:[^"\\]|\\.)*)"|([^ "]+)', line, re.DOTALL)
    return [
        re.sub(rb"\\([0-7]{3}|.)", plain, quoted).decode() if not bare else bare.decode()
        for quoted, bare in words
    ]


@needs_systemd
@pytest.mark.skipif(
    not SYSTEMD.exists() or shutil.which("setpriv") is None, reason="no systemd to ask"
)
def test_systemd_reads_back_any_text() -> None:
    """systemd itself loads the unit and prints what it understood; it runs nothing."""
    printable = [text for text in NASTY if not any(char in text for char in "\x01\x85\r")]
    fleet = render_cases.with_service(
        render_cases.fleet("native"),
        "case-native",
        "llama",
        env={f"V{index}": text for index, text in enumerate(printable) if "\n" not in text},
        options={f"o{index}": text for index, text in enumerate(NASTY)},
        volumes=[Volume(source="/a 'b\" \\c:50%", target="/t")],
    )
    unit = "systemd/inference-100-llama.service"
    # Not below pytest's own folder, which another user may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        release = render_cases.render_fleet(fleet, "case-native")
        (folder / "x.service").write_bytes(release.files[unit].content)
        for target in ("basic", "shutdown", "sysinit", "sockets", "timers", "paths"):
            (folder / f"{target}.target").write_text("[Unit]\nDescription=x\n")
        for piece in ("app", "session", "background"):
            (folder / f"{piece}.slice").write_text("[Unit]\nDescription=x\n")
        (folder / "default.target").write_text("[Unit]\nRequires=x.service\n")
        (folder / "run").mkdir()
        become: list[str] = []
        if os.geteuid() == 0:  # systemd refuses to do this as root
            os.chown(folder / "run", 65534, 65534)
            become = ["setpriv", "--reuid", "65534", "--clear-groups"]
        done = subprocess.run(
            [*become, str(SYSTEMD), "--test", "--user", "--unit=default.target"],
            capture_output=True,
            check=True,
            env={
                "HOME": name,
                "XDG_RUNTIME_DIR": str(folder / "run"),
                "SYSTEMD_UNIT_PATH": name,
                "PATH": os.environ["PATH"],
            },
        )
    shown = done.stdout[done.stdout.index(b"-> Unit x.service:") :]
    line = re.search(rb"Command Line: (.*)", shown)
    assert line is not None
    words = _printed_words(line[1])
    for index, text in enumerate(NASTY):
        assert words[words.index(f"--o{index}") + 1] == text
    for index, text in enumerate(printable):
        if "\n" not in text:
            assert f"\t\tEnvironment: V{index}={text}\n".encode() in shown, text
    assert b"BindReadOnlyPaths: /a 'b\" \\c:50%:/t:rbind\n" in shown
