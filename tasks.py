"""The door: run `invoke --list` here, or import this module from a consuming repository."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

import inferfleet

HERE = Path(__file__).resolve().parent
if Path(inferfleet.__path__[0]).resolve() != HERE / "inferfleet":
    from invoke.exceptions import Exit

    raise Exit(
        f"error: the tasks of {HERE} found another engine: {inferfleet.__path__[0]}\n"
        f"hint: `pip install -e {HERE}`, or remove that one: `pip uninstall inferbase`",
        code=64,
    )

from inferfleet.tasks import ns  # noqa: E402 - of no other engine

ns.name = Path(__file__).absolute().parent.name  # also where the mount is a link

__all__ = ["ns"]
