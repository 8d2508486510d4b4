"""One service of one machine with every default of its kind and machine applied; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine, Service
from inferfleet.schema.placeholders import fill, placeholders
from inferfleet.services.argv import flags, merge_options, text
from inferfleet.services.inside import Inside, inside_of, placed
from inferfleet.services.reached import reached_at
from inferfleet.services.restarts import Policy, policy

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Resolved:
    """A service as it will run.

    project: prefix of the names of its container, unit and volumes. gpus: "all", "none" or
    ids. secrets: environment variable -> name of the machine's secret. key: the name of the
    secret that clients must send, or None. options: words of the command line.
    shared_memory: CPU and GPU of the machine share one memory. restart: how often and when it is
    started again after it ended by itself. inside: its view of the machine's paths. probe: the
    request that proves it ready. reached: names at which the network reaches it.
    """

    name: str
    project: str
    root: str
    models: str
    kind: Kind
    service: Service
    runtime: str
    bind: str
    port: int | None
    gpus: str | tuple[str, ...]
    need: ModelNeed | None
    served_name: str | None
    secrets: Mapping[str, str]
    key: str | None
    options: tuple[str, ...]
    shared_memory: bool
    restart: Policy
    inside: Inside
    probe: str
    reached: tuple[str, ...]

    @property
    def unit(self) -> str:
        """The name of the container, of the systemd unit without suffix."""
        return f"{self.project}-{self.name}"

    @property
    def gpu(self) -> bool:
        return self.gpus != "none"

    def environment(
        self,
        template: Mapping[str, str],
        values: Mapping[str, str | None],
        extra: Mapping[str, str],
    ) -> dict[str, str]:
        """The kind's variables, over them extra, over them the service's own; no secrets."""
        known = {name: value for name, value in values.items() if value is not None}
        result = {
            name: fill(value, known)
            for name, value in template.items()
            if all(used in known for used in placeholders(value))
        }
        result.update(extra)
        result.update((name, text(value)) for name, value in self.service.env.items())
        return {name: result[name] for name in sorted(result) if name not in self.secrets}


def service_runtime(machine: Machine, service: Service, kind: Kind) -> str:
    """What keeps the service running: its own setting, the machine's, the kind's first."""
    return service.runtime or machine.runtime or kind.runtimes[0]


def service_bind(machine: Machine, service: Service) -> str:
    """The address the service listens on, on the machine."""
    return service.bind or machine.bind or LOOPBACK


def service_gpus(fleet: Fleet, machine: Machine, service: Service) -> str | tuple[str, ...]:
    """What a service asks for, else all GPUs of a machine whose hardware has any."""
    if isinstance(service.gpus, list):
        return tuple(str(gpu) for gpu in service.gpus) or "none"
    if service.gpus is not None:
        return service.gpus
    hardware = fleet.hardware.get(machine.hardware) if machine.hardware else None
    able = fleet.kinds[service.kind].gpu and hardware is not None and hardware.gpu is not None
    return "all" if able else "none"


def project_name(root: str) -> str:
    """The compose project: the last part of the root, so two roots never share containers."""
    name = re.sub(r"[^a-z0-9_-]", "-", PurePosixPath(root).name.lower()).strip("-_")
    return name or "inferbase"


def resolve(fleet: Fleet, machine: Machine, name: str, root: str, models: str) -> Resolved:
    """The view of one service. Raises FleetError for what its kind or runtime cannot do."""
    service = machine.services[name]
    kind = fleet.kinds[service.kind]
    runtime = service_runtime(machine, service, kind)
    if runtime not in kind.runtimes:
        raise FleetError(
            f"{name}: the kind {service.kind} does not run with the runtime {runtime}",
            f"it runs with {', '.join(kind.runtimes)}",
            code=USAGE,
        )
    need = model_need(name, service.model, kind.model_scheme, models, fleet.models)
    if need is None and kind.model_required:
        raise FleetError(f"{name}: the kind {service.kind} needs a model", code=USAGE)
    secrets = _secrets(kind, service)
    inside = inside_of(name, service, kind, runtime, need, root, models)
    options = placed(merge_options(kind.options.defaults, service.options), kind, inside)
    gpus = service_gpus(fleet, machine, service)
    shared_memory = _shared_memory(fleet, machine)
    bind = service_bind(machine, service)
    return Resolved(
        name=name,
        project=project_name(root),
        root=root,
        models=models,
        kind=kind,
        service=service,
        runtime=runtime,
        bind=bind,
        port=service.port or kind.default_port,
        gpus=gpus,
        need=need,
        served_name=served_name(service, need),
        secrets=secrets,
        key=_key(kind, secrets),
        options=tuple(flags(options, kind.options)),
        shared_memory=shared_memory,
        restart=policy(
            service.restart,
            machine.restart,
            service.start_timeout or kind.start_timeout,
            shared_memory and gpus != "none",
            service.autostart,
        ),
        inside=inside,
        probe=_probe(kind, service),
        reached=reached_at(machine, bind),
    )


def _probe(kind: Kind, service: Service) -> str:
    if service.health is not None and service.health.probe is not None:
        return service.health.probe
    options = merge_options(kind.options.defaults, service.options)
    for other in kind.probe_when:
        if options.get(other.option) == other.value:
            return other.probe
    return kind.probe


def _secrets(kind: Kind, service: Service) -> dict[str, str]:
    names = list(service.secrets)
    names += [name for name, use in kind.secrets.items() if use.required and name not in names]
    return {kind.secrets[name].env if name in kind.secrets else name: name for name in names}


def _shared_memory(fleet: Fleet, machine: Machine) -> bool:
    hardware = fleet.hardware.get(machine.hardware or "")
    return hardware is not None and hardware.unified


def _key(kind: Kind, secrets: Mapping[str, str]) -> str | None:
    for use in kind.secrets.values():
        if use.api_key and use.env in secrets:
            return secrets[use.env]
    return None


def served_name(service: Service, need: ModelNeed | None) -> str | None:
    """The name clients ask for: the service's own, else the one that its model brings."""
    if service.served_name is not None or need is None:
        return service.served_name
    if need.served_name is not None:
        return need.served_name
    source = need.source
    if source.scheme == "ollama" or (source.scheme == "hf" and not source.member):
        return source.name
    return PurePosixPath(need.path).name.removesuffix(".gguf")
