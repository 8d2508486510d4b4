"""Everything that was loaded: the input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferfleet.schema.hardware import Hardware
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine
from inferfleet.schema.model import DeclaredModel
from inferfleet.schema.profile import Profile


@dataclass(frozen=True)
class Fleet:
    """Machines, kinds, hardware, profiles and models by name, and where templates are searched.

    template_dirs: searched in order, the overlay's before ours; inventory_dirs: likewise.
    sources: the files that each machine was laid together from, the lowest first.
    """

    machines: Mapping[str, Machine]
    kinds: Mapping[str, Kind]
    hardware: Mapping[str, Hardware]
    template_dirs: tuple[Path, ...]
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    models: Mapping[str, DeclaredModel] = field(default_factory=dict)
    inventory_dirs: tuple[Path, ...] = ()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
