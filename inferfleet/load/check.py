"""What no single file can show: names that must exist, values that must fit each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.amounts import cpuset_cpus
from inferfleet.errors import FleetError
from inferfleet.gateway.check import check_gateways
from inferfleet.hostprep.check import check_ground, check_profiles
from inferfleet.load.conflicts import conflicts
from inferfleet.models.check import check_models, check_service_models
from inferfleet.names import name_hint
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Service
from inferfleet.schema.view import Locate, View
from inferfleet.services.parameters import check_parameters

# Keys that only one runtime reads: elsewhere they would be ignored in silence.
_RUNTIME_KEYS = {
    "image": ("compose",),
    "build": ("compose",),
    "shm": ("compose",),
    "ports": ("compose",),
    "capabilities": ("compose",),
    "repository": ("compose",),
    "program": ("systemd", "process"),
}


def check(
    fleet: Fleet, locate: Locate, names: frozenset[tuple[str, str]] | None = None
) -> list[FleetError]:
    """Every contradiction in fleet.

    names: all (file kind, name) that exist, also those too broken to be in fleet, so that one
    broken file is not reported again by each file that names it.
    """
    kinds = {name for kind, name in names or () if kind == "service"} | set(fleet.kinds)
    hardware = {name for kind, name in names or () if kind == "hardware"} | set(fleet.hardware)
    profiles = {name for kind, name in names or () if kind == "profile"} | set(fleet.profiles)
    models = frozenset(name for kind, name in names or () if kind == "model")
    options = {name: kind.options_known for name, kind in fleet.kinds.items()}
    errors: list[FleetError] = [*check_profiles(fleet, locate), *check_models(fleet, locate)]
    for name, machine in fleet.machines.items():
        view = View(name, machine, fleet, locate)
        errors.extend(_machine(view, hardware))
        for service_name, service in machine.services.items():
            if service.kind not in kinds:
                path = ("services", service_name, "kind")
                what = f"there is no service kind {service.kind}"
                errors.append(view.error(path, what, name_hint(service.kind, kinds, "kinds")))
            errors.extend(_service(view, service_name, service))
            errors.extend(_options(view, service_name, service, options.get(service.kind)))
        errors.extend(check_service_models(view, models))
        errors.extend(conflicts(view))
        errors.extend(check_gateways(view))
        errors.extend(check_ground(view, profiles))
    return errors


def _machine(view: View, hardware: set[str]) -> Iterator[FleetError]:
    machine = view.machine
    if machine.address is None:
        for key in ("user", "port", "jump"):
            if getattr(machine, key) is not None:
                what = "is for machines reached over SSH, and this one has no address"
                yield view.error((key,), what, f"add address, or remove {key}", key=True)
    else:
        for key in ("root", "models"):
            if (getattr(machine, key) or "").startswith("~"):
                hint = "write it in full, such as /opt/inferbase"
                yield view.error((key,), "~/ has a meaning only on this machine itself", hint)
    if machine.hardware is not None and machine.hardware not in hardware:
        what = f"there is no hardware {machine.hardware}"
        yield view.error(("hardware",), what, name_hint(machine.hardware, hardware, "hardware"))
    yield from _jump(view)


def _jump(view: View) -> Iterator[FleetError]:
    route = [view.name]
    jump = view.machine.jump
    while jump is not None and jump in view.fleet.machines:
        route.append(jump)
        if jump in route[:-1]:
            if jump == view.name:  # each machine of the circle reports it, at its own key
                yield view.error(("jump",), f"leads back to itself: {' -> '.join(route)}")
            return
        jump = view.fleet.machines[jump].jump


def _service(view: View, name: str, service: Service) -> Iterator[FleetError]:
    path = ("services", name)
    yield from _secrets(view, name, service)
    yield from _hardware(view, name, service)
    if service.modelfile is not None and service.model is None:
        what = "changes a model, and the service names none"
        yield view.error((*path, "modelfile"), what, "add model", key=True)
    kind = view.kind(service)
    if kind is None:
        return
    yield from check_parameters(view, name, service, kind)
    runtime = view.runtime(service)
    if runtime not in kind.runtimes:
        at = (*path, "runtime") if service.runtime else path
        offered = ", ".join(kind.runtimes)
        what = f"kind {service.kind} cannot run with {runtime}"
        yield view.error(at, what, f"it runs with: {offered}", key=not service.runtime)
    else:
        for key, runtimes in _RUNTIME_KEYS.items():
            if getattr(service, key) and runtime not in runtimes:
                what = f"has no effect with {runtime}"
                hint = f"it is for {' and '.join(runtimes)}"
                yield view.error((*path, key), what, hint, key=True)
        if runtime == "process" and service.program is None:
            yield from _embedded(view, path, service, kind)
    if service.port is None and kind.default_port is None:
        what = f"has no port, and kind {service.kind} has no default"
        yield view.error(path, what, "add port", key=True)
    if service.model is None and kind.model_required:
        what = f"has no model, and kind {service.kind} needs one"
        yield view.error(path, what, "add model", key=True)
    yield from _container_keys(view, path, service, kind)
    for secret, use in kind.secrets.items():
        if use.required and secret not in view.machine.secrets:
            what = f"kind {service.kind} needs the secret {secret}, which the machine has not"
            yield view.error(path, what, f"add {secret} to the machine's secrets", key=True)


def _container_keys(
    view: View, path: tuple[str, ...], service: Service, kind: Kind
) -> Iterator[FleetError]:
    """Keys that only some kinds of containers have a use for."""
    ports = kind.compose.ports if kind.compose else {}
    for name in service.ports:
        if name not in ports:
            what = f"kind {service.kind} has no port {name}"
            yield view.error(
                (*path, "ports", name), what, name_hint(name, ports, "ports"), key=True
            )
    if service.repository and (kind.compose is None or kind.compose.repository is None):
        what = f"kind {service.kind} has no model repository"
        yield view.error((*path, "repository"), what, "it is for kind triton", key=True)


def _embedded(
    view: View, path: tuple[str, ...], service: Service, kind: Kind
) -> Iterator[FleetError]:
    if kind.process is None or kind.process.embedded is None:
        what = f"has no program, and kind {service.kind} brings none"
    elif view.machine.local:
        return
    else:
        what = "has no program, and the embedded one runs only on this machine itself"
    yield view.error(path, what, "add program, the executable's path there", key=True)


def _options(
    view: View, name: str, service: Service, known: frozenset[str] | None
) -> Iterator[FleetError]:
    kind = view.kind(service)
    if kind is None:
        return
    for flag in service.options:
        path = ("services", name, "options", flag)
        if flag in kind.options_managed:
            hint = f"use the key {kind.options_managed[flag]} instead"
            yield view.error(path, "is set by inferbase", hint, key=True)
        elif flag in kind.options.removed:
            what = f"kind {service.kind} has no such option any more"
            yield view.error(path, what, kind.options.removed[flag], key=True)
        elif known is not None and not {flag, flag.partition(".")[0]} & known:
            what = f"kind {service.kind} has no such option"
            yield view.error(path, what, name_hint(flag, known, "options"), key=True)
        elif flag in kind.options.newer and _kinds_image(view, service):
            what = f"the image of kind {service.kind} is older than this option"
            hint = f"it came with {kind.options.newer[flag]}: set image to a newer one"
            yield view.error(path, what, hint, key=True)


def _kinds_image(view: View, service: Service) -> bool:
    return view.runtime(service) == "compose" and service.image is None and service.build is None


def _secrets(view: View, name: str, service: Service) -> Iterator[FleetError]:
    for index, secret in enumerate(service.secrets):
        if secret not in view.machine.secrets:
            what = f"the machine has no secret {secret}"
            hint = name_hint(secret, view.machine.secrets, "secrets")
            yield view.error(("services", name, "secrets", index), what, hint)


def _hardware(view: View, name: str, service: Service) -> Iterator[FleetError]:
    hardware = view.hardware
    if hardware is None:
        return
    path = ("services", name)
    threads = hardware.cpu.threads
    if threads is not None:
        beyond = sorted(cpu for cpu in cpuset_cpus(service.cpuset or "0") if cpu >= threads)
        if beyond:
            what = f"CPU {beyond[0]} does not exist; the CPUs are 0-{threads - 1}"
            yield view.error((*path, "cpuset"), what)
        if service.cpus is not None and service.cpus > threads:
            yield view.error((*path, "cpus"), f"{service.cpus:g} is more than the {threads} CPUs")
    if service.gpus in (None, "none", []):
        return
    if hardware.gpu is None:
        what = f"hardware {view.machine.hardware} has no GPU"
        yield view.error((*path, "gpus"), what, "remove the key, or write none")
    elif isinstance(service.gpus, list):
        for index, gpu in enumerate(service.gpus):
            if isinstance(gpu, int) and gpu >= hardware.gpu.count:
                what = f"GPU {gpu} does not exist; the GPUs are 0-{hardware.gpu.count - 1}"
                yield view.error((*path, "gpus", index), what)
