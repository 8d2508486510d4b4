"""The verbs: every task of inferbase in one namespace, `ns`."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection

from inferfleet.tasks import change, gpu, hostprep, inventory, look, models, pages

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
    models.update_models,
    pages.ns,
    inventory.ns,
    hostprep.ns,
)
