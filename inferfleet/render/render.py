"""A fleet and a machine's name to its Release: every file, link, unit and model. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.gateway.files import gateway_secrets, gateway_values
from inferfleet.hostprep.merge import make_ground
from inferfleet.paths import PACKAGE
from inferfleet.release.draft import Draft, SecretFile, SecretLine, encoded, fill, unit_digest
from inferfleet.release.failure import Failure
from inferfleet.release.release import Counters, File, Probe, Release, Unit
from inferfleet.release.write import write_release
from inferfleet.render import native, stanza
from inferfleet.render.control import control_file
from inferfleet.render.templates import Templates
from inferfleet.render.wires import wire
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.kind import Kind
from inferfleet.services.notes import notes
from inferfleet.services.repository import repository_files
from inferfleet.services.resolve import Resolved, project_name, resolve

if TYPE_CHECKING:
    from inferfleet.secrets import Secret

__all__ = ["render", "write_release"]

UNIT_DIRECTORY = "/etc/systemd/system"
EMBEDDED = str(PACKAGE / "engines" / "embedded.py")


@lru_cache(maxsize=8)
def _templates(directories: tuple[Path, ...]) -> Templates:
    return Templates(directories)


def render(
    fleet: Fleet,
    name: str,
    secrets: Mapping[str, Secret],
    *,
    home: str | None = None,
    python: str | None = None,
) -> Release:
    """Everything the machine of this name should have; asks no machine anything.

    secrets: by the name the machine file gives them. The rest as for `draft`. Raises FleetError.
    """
    return fill(draft(fleet, name, home=home, python=python), secrets)


def draft(fleet: Fleet, name: str, *, home: str | None = None, python: str | None = None) -> Draft:
    """The release of this machine without its secrets.

    home: what ~/ means in root and models, python: the interpreter of embedded engines; both
    for the local machine only, where they default to this user's and this process's. Raises
    FleetError.
    """
    machine = fleet.machines[name]
    home = (home or str(Path.home())) if machine.local else None
    python = (python or sys.executable) if machine.local else None
    root = _absolute(machine.root, home, name)
    models = _absolute(machine.models, home, name) if machine.models else f"{root}/models"
    views = [resolve(fleet, machine, service, root, models) for service in machine.services]
    # What is wired to others starts after them.
    views.sort(key=lambda view: bool(view.kind.wires or view.kind.renders))
    rendering = _Rendering(_templates(fleet.template_dirs), fleet, name, views)
    for view in views:
        getattr(rendering, view.runtime)(view, python)
    network = machine.network
    rendering.project(network.model_dump() if network else None)
    project = project_name(root)
    drop = any(
        wanted.name == "memory-guard.drop-caches" and wanted.value
        for wanted in make_ground(fleet, name).settings
    )
    rendering.files["control"] = control_file(rendering.templates, name, root, project, drop)
    release = Release(
        machine=name,
        project=project,
        root=root,
        files=rendering.files,
        links=rendering.links,
        units={view.name: rendering.unit(view) for view in views},
        models=tuple(view.need for view in views if view.need is not None),
        failures={
            view.name: tuple(Failure(f.match, f.says, f.hint, f.more) for f in view.kind.failures)
            for view in views
            if view.kind.failures
        },
        notices={view.name: "; ".join(said) for view in views if (said := [*notes(view)])},
    )
    return Draft(release, rendering.secret_files)


def _absolute(path: str, home: str | None, machine: str) -> str:
    if not path.startswith("~/"):
        return path
    if home is None:
        raise FleetError(
            f"{machine}: {path} is only possible on the local machine",
            "write an absolute path",
            code=USAGE,
        )
    return home.rstrip("/") + path[1:]


class _Rendering:
    """The files of one machine while they are collected."""

    def __init__(
        self,
        templates: Templates,
        fleet: Fleet,
        machine: str,
        views: list[Resolved],
    ) -> None:
        self.templates = templates
        self.fleet = fleet
        self.machine = machine
        self.views = views
        self.files: dict[str, File] = {}
        self.secret_files: dict[str, SecretFile] = {}
        self.links: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self._stanzas: dict[str, str] = {}
        self._volumes: set[str] = set()

    def compose(self, view: Resolved, python: str | None) -> None:
        """One service of the compose project."""
        wired, hidden = self._wire(view)
        own = self._own(view)
        data = stanza.compose(view, wired)
        lines = {line.variable: line for line in (*_secret_lines(view), *hidden)}
        if lines:
            data["env_file"] = f"./{stanza.env_path(view)}"
            ordered = [lines[variable] for variable in sorted(lines)]
            self._hide(view, stanza.env_path(view), "env-file", ordered)
        text = self._text("compose/service.yaml.j2", view, data).rstrip("\n")
        self._stanzas[view.name] = text
        self._volumes.update(stanza.named_volumes(data["mounts"]))
        self.digests[view.name] = unit_digest(text, own)

    def systemd(self, view: Resolved, python: str | None) -> None:
        """One native unit, its secrets and the links that install it."""
        wired, hidden = self._wire(view)
        for line in {line.variable: line for line in (*hidden, *_secret_lines(view))}.values():
            self._hide(view, native.credential_path(view, line.variable), "raw", [line])
        path = f"systemd/{view.unit}.service"
        data = native.systemd(view, wired, [line.variable for line in hidden])
        text = self._text("systemd/service.service.j2", view, data)
        self._add(path, text)
        self.links[f"{UNIT_DIRECTORY}/{view.unit}.service"] = path
        if view.service.autostart:
            self.links[f"{UNIT_DIRECTORY}/multi-user.target.wants/{view.unit}.service"] = path
        self.digests[view.name] = unit_digest(text, self._own(view))

    def process(self, view: Resolved, python: str | None) -> None:
        """One supervised process: its script and its secrets."""
        lines = [*_secret_lines(view), *gateway_secrets(self.fleet, self.machine, view)]
        if lines:
            self._hide(view, stanza.env_path(view), "shell", lines)
        data = native.process(view, python is not None, bool(lines))
        text = self._text("process/run.j2", view, data)
        self._add(f"process/{view.name}/run", text, 0o755)
        if python and native.embeds(view, True):
            # Its paths are this checkout's, so it is no part of what the service is.
            script = {"python": python, "script": EMBEDDED}
            path = native.engine_path(view)
            file = self._add(path, self._text("process/engine.j2", view, script), 0o755)
            self.files[path] = replace(file, loose=view.name)
        self.digests[view.name] = unit_digest(text, self._own(view))

    def _own(self, view: Resolved) -> list[File]:
        """The service's own files, those of its kind, its model repository, its Modelfile."""
        folder = stanza.files_path(view)
        texts = dict(repository_files(view))
        for name, template in sorted(view.kind.files.items()):
            if name not in view.service.files:
                values = stanza.common_values(view) | gateway_values(self.fleet, self.machine, view)
                texts[f"{folder}/{name}"] = self._text(template, view, values)
        for name, text in sorted(view.service.files.items()):
            texts[f"{folder}/{name}"] = text
        if stanza.wants_modelfile(view):
            laid = self._text("ollama/Modelfile.j2", view, stanza.modelfile(view))
            texts[stanza.modelfile_path(view)] = laid
        return [self._add(path, text) for path, text in texts.items()]

    def _wire(self, view: Resolved) -> tuple[dict[str, str], list[SecretLine]]:
        """Variables that tell a service of others: plain ones, and those with secrets."""
        wired, hidden = wire(view, self.views)
        return wired, [*hidden, *gateway_secrets(self.fleet, self.machine, view)]

    def project(self, network: dict[str, Any] | None) -> None:
        """compose.yaml, when any service is a container; a changed network restarts all."""
        views = [view for view in self.views if view.name in self._stanzas]
        if not views:
            return
        for view in views:
            self.digests[view.name] = unit_digest(f"{self.digests[view.name]}{network}", [])
        self._add(
            "compose.yaml",
            self.templates.render(
                "compose/compose.yaml.j2",
                machine=self.machine,
                project=views[0].project,
                network=network,
                volumes=sorted(self._volumes),
                services=[
                    {
                        "name": view.name,
                        "text": self._stanzas[view.name],
                    }
                    for view in views
                ],
            ),
        )

    def unit(self, view: Resolved) -> Unit:
        """What the engine must know of a rendered service."""
        kind = view.kind
        probe = None
        if kind.health is not None and view.port is not None:
            probe = Probe(
                health=kind.health.path,
                loading=tuple(kind.health.loading),
                request=view.probe,
                page=kind.health.page,
                model=view.served_name,
                key=view.key,
                timeout=stanza.start_timeout(view),
                deadline=_deadline(view),
                counters=_counters(kind),
                health_timeout=_health_timeout(kind),
            )
        return Unit(
            service=view.name,
            kind=view.service.kind,
            runtime=view.runtime,
            name=view.name if view.runtime == "process" else view.unit,
            digest=self.digests[view.name],
            address=(view.bind, view.port) if view.port is not None else None,
            api=kind.api,
            model=view.served_name,
            probe=probe,
            metrics=kind.metrics.path if kind.metrics else None,
            autostart=view.service.autostart,
            gpu=view.gpu,
            metrics_port=stanza.metrics_port(view),
        )

    def _text(self, template: str, view: Resolved, data: Mapping[str, Any]) -> str:
        s = {**data, "name": view.name, "kind": view.service.kind}
        return self.templates.render(template, machine=self.machine, s=s)

    def _add(self, path: str, text: str, mode: int = 0o644) -> File:
        self.files[path] = File(encoded(self.machine, path, text), mode)
        return self.files[path]

    def _hide(self, view: Resolved, path: str, spelling: str, lines: list[SecretLine]) -> None:
        self.secret_files[path] = SecretFile(view.name, spelling, tuple(lines))


def _deadline(view: Resolved) -> int:
    """Seconds in which a ready service has to generate one token."""
    assert view.kind.health is not None
    own = view.service.health
    return own.deadline if own and own.deadline else view.kind.health.deadline


def _health_timeout(kind: Kind) -> int:
    """What the container's own check gives the health URL, in seconds."""
    check = kind.compose.healthcheck if kind.compose else None
    return check.timeout if check else 0


def _counters(kind: Kind) -> Counters | None:
    """What the engine counts, when the kind says which of its metrics tell that it works."""
    metrics = kind.metrics
    if metrics is None or metrics.port or not (metrics.tokens or metrics.progress):
        return None
    return Counters(metrics.path, metrics.tokens, tuple(metrics.progress), tuple(metrics.running))


def _secret_lines(view: Resolved) -> list[SecretLine]:
    return [SecretLine(variable, (name,)) for variable, name in view.secrets.items()]
