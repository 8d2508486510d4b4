"""pyinfra, ansible-core and LiteLLM in environments of their own, outside the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path.home() / ".cache" / "inferbase-bench"
VERSIONS = {"pyinfra": "3.10.*", "ansible-core": "2.19.*", "litellm": "1.106.*"}
# Parts of a package that must be asked for.
EXTRAS = {"litellm": "[proxy]"}


def environment(package: str) -> Path:
    """The bin folder of a virtual environment that holds the package; made when it is missing."""
    folder = ENVIRONMENTS / package
    done = folder / f"installed-{VERSIONS[package].rstrip('.*')}"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--quiet"]
        subprocess.run(
            [*pip, f"{package}{EXTRAS.get(package, '')}=={VERSIONS[package]}"], check=True
        )
        done.touch()
    return folder / "bin"


def installed(package: str) -> str:
    """Name and version of what is in the package's environment."""
    python = environment(package) / "python"
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"{package} {done.stdout.strip()}"
