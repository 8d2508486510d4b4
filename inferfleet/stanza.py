"""A view as a container: the plain data that the compose templates print; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from inferfleet.argv import build
from inferfleet.models.need import ModelNeed
from inferfleet.resolve import Resolved
from inferfleet.schema.kind import ComposeKind

# Only a model that lies outside the models directory is mounted here.
OUTSIDE_MODEL = "/model"


def env_path(view: Resolved) -> str:
    """Where the service's secrets lie in the release, as environment variables."""
    return f"env/{view.name}.env"


def modelfile_path(view: Resolved) -> str:
    """Where the service's Modelfile lies in the release."""
    return f"ollama/{view.name}/Modelfile"


def wants_modelfile(view: Resolved) -> bool:
    """True when the service lays parameters or another name over its Ollama model."""
    if view.need is None or view.kind.model_format != "ollama":
        return False
    return view.service.modelfile is not None or view.served_name != view.need.path


def compose(view: Resolved, wired: Mapping[str, str]) -> dict[str, Any]:
    """The container of a view; wired: variables that list other services."""
    kind = view.kind.compose
    assert kind is not None
    service = view.service
    values = common_values(view) | {
        "bind": "0.0.0.0",
        "container-port": str(kind.port),
        "model": _inside(view, kind),
        "modelfile": kind.modelfile if wants_modelfile(view) else None,
    }
    check = kind.healthcheck
    image = (kind.image_cuda or kind.image) if view.gpu else kind.image
    if service.build is not None:
        image = f"{view.unit}:local"
    restart = "unless-stopped" if service.autostart and not view.shared_memory else "on-failure:3"
    return {
        "image": service.image or image,
        "build": service.build.model_dump(exclude_none=True) if service.build else None,
        "container": view.unit,
        "entrypoint": build(list(kind.entrypoint), values, ()) if kind.entrypoint else None,
        "command": build(kind.command, values, view.options),
        "user": kind.user,
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
        "target": kind.port,
        "published": view.port,
        "bind": view.bind,
        "healthcheck": {
            "test": build(list(check.test), values, ()),
            "interval": check.interval,
            "timeout": check.timeout,
            "retries": check.retries,
        },
        "start_timeout": start_timeout(view),
        "restart": restart,
        "stop_timeout": kind.stop_timeout,
    }


def named_volumes(mounts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The volumes that compose must declare for these mounts."""
    return sorted(mount["source"] for mount in mounts if mount["type"] == "volume")


def _mounts(view: Resolved, kind: ComposeKind) -> list[dict[str, Any]]:
    mounts: dict[str, dict[str, Any]] = {}
    if kind.models is not None and view.need is not None and view.need.path.startswith("/"):
        if _below(view.need.path, view.models):
            mounts[kind.models] = _bind(view.models, kind.models)
        else:
            mounts[OUTSIDE_MODEL] = _bind(_outside(view.need), OUTSIDE_MODEL)
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


def _bind(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    # A missing source must be an error: Docker would create it, empty and owned by root.
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": read_only,
        "bind": {"create_host_path": False},
    }


def start_timeout(view: Resolved) -> int:
    """Seconds from start to ready before the start has failed."""
    return view.service.start_timeout or view.kind.start_timeout


def common_values(view: Resolved) -> dict[str, str | None]:
    return {
        "model": view.need.path if view.need else None,
        "served-name": view.served_name,
        "bind": view.bind,
        "port": str(view.port) if view.port else None,
    }


def _inside(view: Resolved, kind: ComposeKind) -> str | None:
    """The path of the model as the container sees it."""
    if view.need is None or not view.need.path.startswith("/"):
        return view.need.path if view.need else None
    if kind.models is not None and _below(view.need.path, view.models):
        return kind.models + view.need.path[len(view.models) :]
    inside = view.need.path[len(_outside(view.need)) :]
    return OUTSIDE_MODEL + inside


def _outside(need: ModelNeed) -> str:
    """What to mount of a model outside the models directory: a file's directory, else itself."""
    path = PurePosixPath(need.path)
    return str(path.parent) if path.suffix in (".gguf", ".safetensors", ".bin") else str(path)


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def modelfile(view: Resolved) -> dict[str, Any]:
    """What stands in the service's Modelfile; only for views that want one."""
    need, spec = view.need, view.service.modelfile
    assert need is not None
    assert view.kind.compose is not None
    parameters: list[tuple[str, object]] = []
    for name, value in (spec.parameters if spec else {}).items():
        values = value if isinstance(value, list) else [value]
        parameters += [(name, one) for one in values]
    return {
        "source": _inside(view, view.kind.compose),
        "parameters": parameters,
        "system": spec.system if spec else None,
        "template": spec.template if spec else None,
    }
