"""A view without a container: the plain data of its systemd unit or process script; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.escape import systemd_mount
from inferfleet.render.stanza import common_values, env_path
from inferfleet.schema.placeholders import Argv
from inferfleet.schema.runtime import ProcessKind
from inferfleet.services.argv import build
from inferfleet.services.resolve import Resolved

_HOMES = ("/home/", "/root/", "/run/user/")
# Exports each credential under its name, then becomes the program; no value is evaluated.
_WITH_SECRETS = (
    'for file in "$CREDENTIALS_DIRECTORY"/*; do value=$(cat "$file"; printf x); '
    'export "${file##*/}=${value%x}"; done; exec "$@"'
)


def credential_path(view: Resolved, variable: str) -> str:
    """Where one secret of a systemd unit lies in the release."""
    return f"secrets/{view.name}/{variable}"


def systemd(
    view: Resolved, wired: Mapping[str, str] | None = None, hidden: Iterable[str] = ()
) -> dict[str, Any]:
    """The native unit of a view.

    wired: variables that list other services; hidden: names of those with secrets.
    """
    kind = view.kind.systemd
    assert kind is not None
    service = view.service
    program = service.program or kind.program
    if not program.startswith("/"):
        raise FleetError(
            f"{view.name}: a systemd unit needs the absolute path of its program, not {program}",
            code=USAGE,
        )
    values = common_values(view) | {
        "program": program,
        "cache": f"/var/cache/{view.unit}" if kind.cache else None,
        "state": f"/var/lib/{view.unit}" if kind.state else None,
    }
    credentials = sorted({*view.secrets, *hidden})
    command = build(kind.command, values, view.options)
    if credentials:
        command = ["/bin/sh", "-ec", _WITH_SECRETS, view.unit, *command]
    mounts = [
        {
            "read_only": volume.read_only,
            "word": systemd_mount(volume.source, volume.target),
        }
        for volume in service.volumes
    ]
    read = [program, view.root, view.need.path if view.need else "", *view.inside.mounts]
    return {
        "command": command,
        "environment": view.environment(
            kind.environment, values, {**_devices(view), **(wired or {})}
        ),
        "credentials": {
            variable: f"{view.root}/current/{credential_path(view, variable)}"
            for variable in credentials
        },
        "mounts": mounts,
        "unit": view.unit,
        "memory": service.memory,
        "cpus": service.cpus,
        "cpuset": service.cpuset,
        "tasks": kind.tasks,
        "gpu": view.gpu,
        "jit": kind.jit,
        "netlink": kind.netlink,
        "cache": kind.cache,
        "state": kind.state,
        "whole_machine": kind.whole_machine,
        "home": kind.whole_machine or any(path.startswith(_HOMES) for path in read),
        "stop_timeout": kind.stop_timeout,
        "restart": view.restart,
    }


def engine_path(view: Resolved) -> str:
    """Where the program of an embedded engine lies in the release."""
    return f"process/{view.name}/engine"


def process(view: Resolved, embedded: bool, secrets: bool) -> dict[str, Any]:
    """The supervised process of a view.

    embedded: there is an engine for it here; secrets: it has a file with some.
    """
    kind = view.kind.process
    assert kind is not None
    values = common_values(view) | {
        "program": view.service.program,
        "embedded": f"{view.root}/current/{engine_path(view)}",
    }
    return {
        "command": build(_command(view, kind, embedded), values, view.options),
        "environment": view.environment(kind.environment, values, _devices(view)),
        "env_file": env_path(view) if secrets else None,
        "state": f"{view.root}/.inferbase/run/{view.name}",
        "unit": view.unit,
        "restart": view.restart,
    }


def _command(view: Resolved, kind: ProcessKind, embedded: bool) -> Argv:
    if embeds(view, embedded):
        assert kind.embedded is not None
        return kind.embedded
    if view.service.program is None and kind.needs_program:
        raise FleetError(
            f"{view.name}: as a process this needs program:",
            "the embedded engine exists on the local machine only",
            code=USAGE,
        )
    return kind.command


def embeds(view: Resolved, embedded: bool) -> bool:
    """Whether a process runs the embedded engine. embedded: there is one for it here."""
    kind = view.kind.process
    return bool(embedded and kind and kind.embedded is not None and view.service.program is None)


def _devices(view: Resolved) -> dict[str, str]:
    """Outside containers only these variables keep a service off the other GPUs.

    CUDA counts the fastest GPU first unless told to count as nvidia-smi does.
    """
    if view.gpus == "all" or not view.kind.gpu:
        return {}
    if view.gpus == "none":
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(view.gpus)}
