"""The verbs: every task of inferbase in one namespace, `ns`."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke.collection import Collection

# Invoke keeps Python from writing compiled modules unless it is given --write-pyc. Compiling ours
# again would take a third of the time of a run with nothing to change; who has told Python
# itself (-B, PYTHONDONTWRITEBYTECODE) is obeyed.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from inferfleet.tasks import (  # noqa: E402 - it must not be compiled before
    capacity,
    change,
    gpu,
    hostprep,
    inventory,
    look,
    models,
    shelf,
)

ns = Collection(
    Path(__file__).resolve().parents[2].name,
    change.up,
    change.down,
    change.restart,
    change.plan,
    change.apply,
    change.rollback,
    change.render,
    look.status,
    look.health,
    look.logs,
    look.shell,
    look.history,
    look.endpoints,
    look.tunnel,
    look.doctor,
    gpu.gpu,
    capacity.capacity,
    models.update_models,
    shelf.ns,
    inventory.ns,
    hostprep.ns,
)
