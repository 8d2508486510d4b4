"""One service against its kind and its machine: names that must exist, keys that fit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.amounts import cpuset_cpus
from inferfleet.errors import FleetError
from inferfleet.names import name_hint
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Service
from inferfleet.schema.unreadable import readable
from inferfleet.schema.view import View
from inferfleet.services.argv import merge_options
from inferfleet.services.named import wrong_option
from inferfleet.services.parameters import check_parameters
from inferfleet.services.refused import check_refused
from inferfleet.services.uses import check_uses
from inferfleet.services.values import gpu_count, split_names, split_words, wrong_value

# Keys that only some runtimes read: elsewhere they would be ignored in silence.
_RUNTIME_KEYS = {
    "image": ("compose",),
    "build": ("compose",),
    "shm": ("compose",),
    "ports": ("compose",),
    "capabilities": ("compose",),
    "repository": ("compose",),
    "program": ("systemd", "process"),
    "volumes": ("compose", "systemd"),
}


def check_service(view: View, name: str, service: Service) -> Iterator[FleetError]:
    """Every contradiction of one service, as far as it and its kind can be read."""
    yield from readable(_kind(view, name, service))
    yield from readable(_secrets(view, name, service))
    yield from readable(_cpus(view, name, service))
    yield from readable(_gpus(view, name, service))
    kind = view.kind(service)
    if kind is None:
        return
    for checked in (
        check_parameters, check_uses, _runtime, _port, _extra_ports, _kinds_secrets, _options,
        _values, _split, check_refused,
    ):  # fmt: skip
        yield from readable(checked(view, name, service, kind))


def _kind(view: View, name: str, service: Service) -> Iterator[FleetError]:
    kinds = view.fleet.kinds
    if service.kind not in kinds:
        what = f"there is no service kind {service.kind}"
        hint = name_hint(service.kind, kinds, "kinds")
        yield view.error(("services", name, "kind"), what, hint)


def _runtime(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    path = ("services", name)
    runtime = view.runtime(service)
    if runtime not in kind.runtimes:
        at = (*path, "runtime") if service.runtime else path
        offered = ", ".join(kind.runtimes)
        what = f"kind {service.kind} cannot run with {runtime}"
        yield view.error(at, what, f"it runs with: {offered}", key=not service.runtime)
        return
    for key, runtimes in _RUNTIME_KEYS.items():
        yield from readable(_no_effect(view, (*path, key), service, runtime, runtimes))
    if runtime == "process" and service.program is None:
        yield from _embedded(view, path, service, kind)


def _no_effect(
    view: View, path: tuple[str, ...], service: Service, runtime: str, runtimes: tuple[str, ...]
) -> Iterator[FleetError]:
    if getattr(service, path[-1]) and runtime not in runtimes:
        what = f"has no effect with {runtime}"
        yield view.error(path, what, f"it is for {' and '.join(runtimes)}", key=True)


def _embedded(
    view: View, path: tuple[str, ...], service: Service, kind: Kind
) -> Iterator[FleetError]:
    if kind.process is None or not kind.process.needs_program:
        return
    if kind.process.embedded is None:
        what = f"has no program, and kind {service.kind} brings none"
    elif view.machine.local:
        return
    else:
        what = "has no program, and the embedded one runs only on this machine itself"
    yield view.error(path, what, "add program, the executable's path there", key=True)


def _port(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    if service.port is None and kind.default_port is None:
        what = f"has no port, and kind {service.kind} has no default"
        yield view.error(("services", name), what, "add port", key=True)


def _extra_ports(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    ports = kind.compose.ports if kind.compose else {}
    for port in service.ports:
        if port not in ports:
            what = f"kind {service.kind} has no port {port}"
            hint = name_hint(port, ports, "ports")
            yield view.error(("services", name, "ports", port), what, hint, key=True)


def _kinds_secrets(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    for secret, use in kind.secrets.items():
        if use.required and secret not in view.machine.secrets:
            what = f"kind {service.kind} needs the secret {secret}, which the machine has not"
            hint = f"add {secret} to the machine's secrets"
            yield view.error(("services", name), what, hint, key=True)


def _options(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    if kind.options.style == "none":
        return  # any is one too many, which is told once
    image = _kinds_image(view, service)
    for flag in service.options:
        if told := wrong_option(service.kind, kind.options, flag, image):
            yield view.error(("services", name, "options", flag), *told, key=True)


def _values(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    """Values that the engine would refuse when it starts."""
    for flag, value in service.options.items():
        rule = kind.options.values.get(flag.replace("_", "-"))
        if rule is not None and value is not None and (told := wrong_value(value, rule)):
            yield view.error(("services", name, "options", flag), told)


def _split(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    """A model split over more GPUs than the service has."""
    split, hardware = kind.options.gpus, view.hardware
    if split is None or not view.uses_gpu(service):
        return
    there = hardware.gpu.count if hardware and hardware.gpu else None
    given = len(service.gpus) if isinstance(service.gpus, list) else there
    options = merge_options(kind.options.defaults, service.options)
    plain = split.model_dump()
    wanted = gpu_count(plain, options)
    if wanted is None or given is None or wanted <= given:
        return
    written = split_names(plain, list(service.options))
    path = ("services", name, "options", written[-1]) if written else ("services", name)
    what = f"{split_words(plain, options)} needs {wanted} GPUs, and the service has {given}"
    yield view.error(path, what, "lower it, or give the service more gpus")


def _kinds_image(view: View, service: Service) -> bool:
    return view.runtime(service) == "compose" and service.image is None and service.build is None


def _secrets(view: View, name: str, service: Service) -> Iterator[FleetError]:
    for index, secret in enumerate(service.secrets):
        if secret not in view.machine.secrets:
            what = f"the machine has no secret {secret}"
            hint = name_hint(secret, view.machine.secrets, "secrets")
            yield view.error(("services", name, "secrets", index), what, hint)


def _cpus(view: View, name: str, service: Service) -> Iterator[FleetError]:
    threads = view.hardware.cpu.threads if view.hardware else None
    if threads is None:
        return
    path = ("services", name)
    beyond = sorted(cpu for cpu in cpuset_cpus(service.cpuset or "0") if cpu >= threads)
    if beyond:
        what = f"CPU {beyond[0]} does not exist; the CPUs are 0-{threads - 1}"
        yield view.error((*path, "cpuset"), what)
    if service.cpus is not None and service.cpus > threads:
        yield view.error((*path, "cpus"), f"{service.cpus:g} is more than the {threads} CPUs")


def _gpus(view: View, name: str, service: Service) -> Iterator[FleetError]:
    hardware = view.hardware
    if hardware is None or service.gpus in (None, "none", []):
        return
    path = ("services", name, "gpus")
    if hardware.gpu is None:
        what = f"hardware {view.machine.hardware} has no GPU"
        yield view.error(path, what, "remove the key, or write none")
    elif isinstance(service.gpus, list):
        for index, gpu in enumerate(service.gpus):
            if isinstance(gpu, int) and gpu >= hardware.gpu.count:
                what = f"GPU {gpu} does not exist; the GPUs are 0-{hardware.gpu.count - 1}"
                yield view.error((*path, index), what)
