"""A view as a container: the plain data that the compose templates print; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inferfleet.schema.machine import Volume
from inferfleet.schema.runtime import ComposeKind
from inferfleet.services.argv import build
from inferfleet.services.inside import FILES, OUTSIDE_MODEL, below, outside
from inferfleet.services.reached import allowed_hosts, origins
from inferfleet.services.repository import repository_mounts
from inferfleet.services.resolve import Resolved


def env_path(view: Resolved) -> str:
    """Where the service's secrets lie in the release, as environment variables."""
    return f"env/{view.name}.env"


def modelfile_path(view: Resolved) -> str:
    """Where the service's Modelfile lies in the release."""
    return f"ollama/{view.name}/Modelfile"


def wants_modelfile(view: Resolved) -> bool:
    """True when the service lays parameters or another name over its Ollama model."""
    if view.need is None or "modelfile" not in view.kind.sections:
        return False
    return view.service.modelfile is not None or view.served_name != view.need.path


def compose(view: Resolved, wired: Mapping[str, str]) -> dict[str, Any]:
    """The container of a view; wired: variables that list other services."""
    kind = view.kind.compose
    assert kind is not None
    service = view.service
    values = common_values(view) | {
        "bind": view.bind if kind.host_network else "0.0.0.0",
        "host": bracketed(view.bind) if kind.host_network else "0.0.0.0",
        "container-port": str(view.port if kind.host_network else kind.port),
        "model": _inside(view),
        "modelfile": kind.modelfile if wants_modelfile(view) else None,
        "repository": kind.repository if view.service.repository else None,
    }
    check = kind.healthcheck
    image = (kind.image_cuda or kind.image) if view.gpu else kind.image
    if service.build is not None:
        image = f"{view.unit}:local"
    return {
        "image": service.image or image,
        "build": service.build.model_dump(exclude_none=True) if service.build else None,
        "container": view.unit,
        "entrypoint": build(list(kind.entrypoint), values, ()) if kind.entrypoint else None,
        "command": build(kind.command, values, view.options),
        # Docker grants added capabilities to root alone.
        "user": "0:0" if service.capabilities else kind.user,
        "read_only": kind.read_only,
        "pids": kind.pids,
        "memory": service.memory,
        "cpus": service.cpus,
        "cpuset": service.cpuset,
        "shm": service.shm or kind.shm,
        "memlock": kind.memlock,
        "gpus": view.gpus,
        "environment": view.environment(kind.environment, values, wired),
        "env_file": f"./{env_path(view)}" if view.secrets else None,
        "mounts": _mounts(view, kind),
        "tmpfs": kind.tmpfs,
        "ports": _ports(view, kind),
        "bind": view.bind,
        "host_network": kind.host_network,
        "host_pid": kind.host_pid,
        "capabilities": service.capabilities,
        "healthcheck": check
        and {
            "test": build(list(check.test), values, ()),
            "interval": check.interval,
            "timeout": check.timeout,
            "retries": check.retries,
        },
        "start_timeout": start_timeout(view),
        "restart": view.restart.docker,
        "stop_timeout": kind.stop_timeout,
    }


def named_volumes(mounts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The volumes that compose must declare for these mounts."""
    return sorted(mount["source"] for mount in mounts if mount["type"] == "volume")


def _mounts(view: Resolved, kind: ComposeKind) -> list[dict[str, Any]]:
    mounts: dict[str, dict[str, Any]] = {}
    if kind.models is not None and view.need is not None and view.need.path.startswith("/"):
        if below(view.need.path, view.models):
            mounts[kind.models] = _bind(view.models, kind.models)
        elif _volume_of(view, view.need.path) is None:
            mounts[OUTSIDE_MODEL] = _bind(outside(view.need), OUTSIDE_MODEL)
    if kind.models is not None and view.inside.sees_models:
        mounts[kind.models] = _bind(view.models, kind.models)
    for target, source in (view.inside.mounts | kind.binds).items():
        mounts[target] = _bind(source, target)
    if files := files_path(view):
        mounts[FILES] = _bind(f"./{files}", FILES)
    if kind.repository is not None:
        for target, source in repository_mounts(view, kind.repository):
            mounts[target] = _bind(source, target)
    for suffix, target in kind.volumes.items():
        mounts[target] = {"type": "volume", "source": f"{view.name}-{suffix}", "target": target}
    if kind.modelfile and wants_modelfile(view):
        mounts[kind.modelfile] = _bind(f"./{modelfile_path(view)}", kind.modelfile)
    for volume in view.service.volumes:
        if volume.source.startswith("/"):
            mounts[volume.target] = _bind(volume.source, volume.target, volume.read_only)
        else:
            mount = {"type": "volume", "source": volume.source, "target": volume.target}
            mounts[volume.target] = mount | ({"read_only": True} if volume.read_only else {})
    return [mounts[target] for target in sorted(mounts)]


def _volume_of(view: Resolved, path: str) -> Volume | None:
    """The service's own volume that a path of the machine lies in."""
    volumes = (volume for volume in view.service.volumes if volume.source.startswith("/"))
    return next((volume for volume in volumes if below(path, volume.source)), None)


def _bind(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    # A missing source must be an error: Docker would create it, empty and owned by root.
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": read_only,
        # Disks that the machine mounts later on appear below, too.
        "bind": {"create_host_path": False} | ({"propagation": "rslave"} if source == "/" else {}),
    }


def _ports(view: Resolved, kind: ComposeKind) -> list[dict[str, Any]]:
    """What is published, the main port first; nothing where it has the machine's own network."""
    if kind.host_network:
        return []
    ports = [(kind.port, view.port)] if view.port else []
    ports += [
        (port.port, view.service.ports.get(name, port.default)) for name, port in kind.ports.items()
    ]
    return [{"target": target, "published": published} for target, published in ports]


def start_timeout(view: Resolved) -> int:
    """Seconds from start to ready before the start has failed."""
    return view.service.start_timeout or view.kind.start_timeout


def metrics_port(view: Resolved) -> int | None:
    """Where its metrics are published, when that is not its main port."""
    name = view.kind.metrics.port if view.kind.metrics else None
    if name is None or view.kind.compose is None:
        return None
    return view.service.ports.get(name, view.kind.compose.ports[name].default)


def files_path(view: Resolved) -> str | None:
    """Where the service's own files lie in the release; None when it has none."""
    return f"files/{view.name}" if view.inside.known_files else None


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def common_values(view: Resolved) -> dict[str, str | None]:
    """What placeholders stand for, as far as no runtime says otherwise."""
    laid = view.service.modelfile
    return {
        "go-template": "1" if laid and laid.template else None,
        "service": view.name,
        "files": view.inside.files if view.inside.known_files else None,
        "model": view.need.path if view.need else None,
        "served-name": view.served_name,
        "bind": view.bind,
        "host": bracketed(view.bind),
        "port": str(view.port) if view.port else None,
        "allowed-hosts": allowed_hosts(view.name, view.reached),
        "origins": origins(view.reached, view.port),
    }


def _inside(view: Resolved) -> str | None:
    """The path of the model as the container sees it."""
    kind = view.kind.compose
    if kind is None or view.need is None or not view.need.path.startswith("/"):
        return view.need.path if view.need else None
    if kind.models is not None and below(view.need.path, view.models):
        return kind.models + view.need.path[len(view.models) :]
    if volume := _volume_of(view, view.need.path):
        return volume.target + view.need.path[len(volume.source) :]
    return OUTSIDE_MODEL + view.need.path[len(outside(view.need)) :]


def modelfile(view: Resolved) -> dict[str, Any]:
    """What stands in the service's Modelfile; only for views that want one."""
    need, spec = view.need, view.service.modelfile
    assert need is not None
    parameters: list[tuple[str, object]] = []
    for name, value in (spec.parameters if spec else {}).items():
        values = value if isinstance(value, list) else [value]
        parameters += [(name, one) for one in values]
    return {
        "source": _inside(view),
        "parameters": parameters,
        "system": spec.system if spec else None,
        "template": spec.template if spec else None,
    }
