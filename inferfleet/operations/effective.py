"""A machine file with everything that it leaves to defaults written out, each value with its place.

What comes out is a machine file again, and says the same: rendering it gives the same release.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from inferfleet.schema.nodes import Node, Path
from inferfleet.services.resolve import LOOPBACK, Resolved, resolve

if TYPE_CHECKING:
    from inferfleet.load.load import Loaded

# The file that values come from which no file says.
DEFAULT = "default"


def effective(loaded: Loaded, name: str) -> Node:
    """The content of one machine, merged, with the defaults of its kinds and our own.

    Raises FleetError for what its kinds cannot do.
    """
    whole = loaded.nodes["machine", name]
    machine = loaded.fleet.machines[name]
    items: dict[str, Node] = {key: node for key, node in whole.value.items() if key != "merge"}
    models = machine.models or f"{machine.root}/models"
    for key, value in {"root": machine.root, "models": models, "bind": LOOPBACK}.items():
        items.setdefault(key, _default(value))
    services: dict[str, Node] = {}
    for service in machine.services:
        # Where ~/ is changes nothing that is shown.
        root, shelf = os.path.expanduser(machine.root), os.path.expanduser(models)
        found = resolve(loaded.fleet, machine, service, root, shelf)
        written = whole.at(("services", service))
        assert written is not None
        services[service] = _service(loaded, found, written, items)
    items["services"] = Node(services, whole.file, whole.spot)
    keys = [field.alias or key for key, field in type(machine).model_fields.items()]
    return Node({key: items[key] for key in keys if key in items}, whole.file, whole.spot)


def hardware_line(loaded: Loaded, name: str) -> str:
    """What the hardware file of a machine says of it, in its own words; "" without one."""
    kind = loaded.fleet.machines[name].hardware
    node = loaded.nodes.get(("hardware", kind or ""))
    if node is None or type(node.value) is not dict:
        return ""
    data = node.plain()
    parts = [f"{key} {data[key]}" for key in ("memory", "reserve") if key in data]
    parts += ["one memory for CPU and GPU"] if data.get("unified") else []
    if gpu := data.get("gpu"):
        parts.append(f"{gpu.get('count', 1)} x {gpu.get('name')}")
        parts += [f"{gpu['bandwidth-gbs']} GB/s"] if "bandwidth-gbs" in gpu else []
    return ", ".join(map(str, parts))


def _service(loaded: Loaded, found: Resolved, written: Node, machine: dict[str, Node]) -> Node:
    """One service: what is written, and under it what its machine, its kind and we say."""
    kind, service = found.kind, found.service
    section = {"compose": kind.compose, "systemd": kind.systemd, "process": kind.process}
    items: dict[str, Node] = dict(written.value)
    kinds = loaded.nodes["service", service.kind]

    def add(key: str, value: object, *path: str) -> None:
        """A value from the kind's file, if path leads to it there, else of our own."""
        if key not in items and value is not None:
            node = kinds.at(path) if path else None
            items[key] = node if node is not None else _default(value)

    items.setdefault("runtime", machine.get("runtime") or _placed(found.runtime, kinds))
    add("served-name", found.served_name)
    add("port", found.port, "default-port")
    items.setdefault("bind", machine["bind"])
    compose = section[found.runtime] if found.runtime == "compose" else None
    if kind.compose is not None and compose is not None:
        ports = {key: _default(port.default) for key, port in kind.compose.ports.items()}
        if ports:
            items["ports"] = _under(items.get("ports"), ports)
        if service.build is None:
            cuda = found.gpu and kind.compose.image_cuda is not None
            key = "image-cuda" if cuda else "image"
            add("image", kinds.at(("compose", key)), "compose", key)
        add("shm", kinds.at(("compose", "shm")), "compose", "shm")
    if kind.systemd is not None and found.runtime == "systemd":
        add("program", kind.systemd.program, "systemd", "program")
    defaults = kinds.at(("options", "defaults"))
    if defaults is not None or "options" in items:
        items["options"] = _under(items.get("options"), defaults.value if defaults else {})
    asked = list(dict.fromkeys([*service.secrets, *found.secrets.values()]))
    if asked != service.secrets:
        items["secrets"] = _placed(asked, items.get("secrets") or kinds)
    if kind.gpu:
        gpus = found.gpus if isinstance(found.gpus, str) else list(found.gpus)
        items.setdefault("gpus", _default(gpus))
    add("start-timeout", span(kind.start_timeout), "start-timeout")
    items["health"] = _health(found, items.get("health"), kinds)
    items["restart"] = _restart(found, items.get("restart") or machine.get("restart"))
    for key in ("autostart", "evict", "admission"):
        add(key, getattr(service, key))
    keys = [field.alias or key for key, field in type(service).model_fields.items()]
    return Node({key: items[key] for key in keys if key in items}, written.file, written.spot)


def _health(found: Resolved, written: Node | None, kinds: Node) -> Node:
    items = {"probe": kinds.at(("probe",)) or _default(found.probe)}
    if items["probe"].value != found.probe:
        items["probe"] = _placed(found.probe, kinds)
    if found.kind.health is not None:
        deadline = kinds.at(("health", "deadline"))
        items["deadline"] = deadline or _default(span(found.kind.health.deadline))
    return _under(written, items)


def _restart(found: Resolved, written: Node | None) -> Node:
    policy = found.restart
    items = {"window": _default(span(policy.window)), "backoff": _default(span(policy.backoff))}
    if policy.bounded or found.runtime != "compose":
        items["max"] = _default(policy.max)
    return _under(written, items)


def _under(written: Node | None, below: dict[str, Node]) -> Node:
    """A mapping as it is written, with what it does not say from below."""
    if written is None:
        return Node(below, DEFAULT, (0, 0))
    return Node({**below, **written.value}, written.file, written.spot)


def _default(value: Any) -> Node:
    return _placed(value, Node(None, DEFAULT, (0, 0)))


def _placed(value: Any, beside: Node) -> Node:
    """A value that follows from what stands elsewhere."""
    inner = [_placed(item, beside) for item in value] if isinstance(value, list) else value
    return Node(inner, beside.file, beside.spot)


def span(seconds: int) -> str:
    """Seconds as files say them: 20m."""
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds % factor == 0:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"


def places(node: Node, path: Path = ()) -> dict[str, str]:
    """Dotted key -> FILE:LINE of each value below node, for programs."""
    if type(node.value) is dict and node.value:
        found: dict[str, str] = {}
        for key, inner in node.value.items():
            found |= places(inner, (*path, key))
        return found
    return {".".join(map(str, path)): place(node)}


def place(node: Node) -> str:
    """Where a value stands."""
    return f"{node.file}:{node.spot[0]}" if node.spot[0] else node.file
