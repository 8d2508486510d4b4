"""What a run must know of one machine: where it is, where its secrets come from, its draft."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inferfleet.hosts.connect import Reach, reach_of
from inferfleet.release.draft import Draft
from inferfleet.secrets import Origin

if TYPE_CHECKING:
    from inferfleet.plan.footing import Footing
    from inferfleet.release.release import Release
    from inferfleet.schema.fleet import Fleet
    from inferfleet.schema.machine import Machine


@dataclass(frozen=True)
class Brief:
    """Plain data without a secret, made from the files alone, so that it can be kept on disk.

    modelfiles: by service, the parts of an Ollama Modelfile that its machine file gives.
    footings: what services need of the host under them. gpu: the hardware has GPUs. watched:
    the machine says how much space must stay free somewhere. budget: what services may take of
    the machine's memory, and what its hardware file says of that; as budget.make_budget says.
    site: where it stands, None when nobody says; site_address: for machines of its site.
    models: the models directory. keys: by service, the secret that one of its clients sends, of
    those that ask for a key.
    """

    name: str
    reach: Reach
    sudo: bool
    origins: Mapping[str, Origin]
    modelfiles: Mapping[str, Mapping[str, Any]]
    draft: Draft
    footings: Mapping[str, Footing] = field(default_factory=dict)
    gpu: bool = False
    watched: bool = False
    budget: Mapping[str, Any] = field(default_factory=dict)
    site: str | None = None
    site_address: str | None = None
    models: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        """True for the machine that inferbase itself runs on."""
        return self.reach.address is None


def make_brief(fleet: Fleet, name: str) -> Brief:
    """The brief of one machine. Raises FleetError for what its kinds or runtimes cannot do."""
    from inferfleet.hostprep.merge import make_ground
    from inferfleet.plan.footing import make_footings
    from inferfleet.render.render import draft
    from inferfleet.services.budget import make_budget

    machine = fleet.machines[name]
    made, ground = draft(fleet, name), make_ground(fleet, name)
    return Brief(
        name=name,
        reach=reach_of(fleet.machines, name),
        sudo=machine.sudo,
        origins={
            secret: Origin(ref.env, ref.file, tuple(ref.command) if ref.command else None)
            for secret, ref in machine.secrets.items()
        },
        modelfiles={
            service: entry.modelfile.model_dump(exclude_none=True)
            for service, entry in machine.services.items()
            if entry.modelfile is not None
        },
        draft=made,
        footings=make_footings(fleet, name, made.release, ground),
        gpu=bool(ground.hardware.get("gpu")),
        budget=make_budget(fleet, name),
        watched=any(wanted.value.get("min-free") for wanted in ground.of("storage")),
        site=machine.site,
        site_address=machine.site_address,
        models=os.path.expanduser(machine.models or "") or f"{made.release.root}/models",
        keys=_keys(machine, made.release),
    )


def _keys(machine: Machine, release: Release) -> dict[str, str]:
    units = release.units.values()
    found = {unit.service: unit.probe.key for unit in units if unit.probe and unit.probe.key}
    for service, entry in machine.services.items():
        if entry.gateway is not None:
            for key in entry.gateway.keys.values():
                found.setdefault(service, key.secret)
    return found
