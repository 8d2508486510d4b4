"""The door: run `invoke --list` here, or import this module from a consuming repository."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from inferfleet.tasks import ns

__all__ = ["ns"]
