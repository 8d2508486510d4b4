"""What the page of a kind says of its containers, units and processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inferfleet.docs.text import amount, part, span, spans, table, wrapped
from inferfleet.schema.kind import Kind
from inferfleet.schema.runtime import ComposeKind, ProcessKind, SystemdKind


def runtimes(kind: Kind) -> list[str]:
    """A section for each way in which a service of the kind can run."""
    lines: list[str] = []
    for name, rows in (
        ("As a container", kind.compose and _compose(kind.compose)),
        ("As a systemd unit", kind.systemd and _systemd(kind.systemd)),
        ("As a process", kind.process and _process(kind.process)),
    ):
        if rows:
            lines += part(name, table(["what", "value"], list(rows)))
    return lines


def environment(kind: Kind) -> list[str]:
    """The variables of every service of the kind, by runtime; none for no table at all."""
    sections = {"compose": kind.compose, "systemd": kind.systemd, "process": kind.process}
    found = {name: section.environment for name, section in sections.items() if section}
    names = sorted({variable for variables in found.values() for variable in variables})
    if not names:
        return []
    rows = [[f"`{one}`", *(_shown(found[run], one) for run in found)] for one in names]
    told = wrapped(
        "Set unless `env:` says other; left out where one of its [placeholders]"
        "(../kind.md#placeholders) has no value."
    )
    return [*told, *table(["variable", *found], rows)]


def _shown(variables: Mapping[str, str], name: str) -> str:
    return f"`{variables[name]}`" if variables.get(name) else "-"


def _compose(run: ComposeKind) -> Iterator[list[Any]]:
    yield ["image", f"`{run.image}`"]
    if run.image_cuda:
        yield ["image with a GPU", f"`{run.image_cuda}`"]
    pinned = "digest" if "@sha256:" in run.image else "tag"
    yield ["pinned by", f"{pinned}; `image:` of a service names another, by digest if need be"]
    yield ["port inside", run.port]
    for name, port in run.ports.items():
        yield [f"port {name} inside", port.port]
    yield ["user", f"{run.user}{', root in name only' * run.user.startswith('0:')}"]
    yield ["capabilities", "none, and none to be gained, but those of `capabilities:`"]
    yield ["root file system", "read-only" if run.read_only else "writable"]
    yield ["most processes", run.pids]
    if run.memlock:
        yield ["locked memory", "without a limit"]
    if run.shm:
        yield ["/dev/shm", f"{amount(run.shm)}, unless `shm:` says other"]
    if run.host_network:
        yield ["network", "the machine's own"]
    if run.host_pid:
        yield ["processes", "sees those of the machine"]
    for what, path in (
        ("models", run.models), ("repository", run.repository), ("Modelfile", run.modelfile)
    ):  # fmt: skip
        if path:
            yield [what, f"`{path}`, read-only"]
    for target, source in run.binds.items():
        yield [f"the machine's `{source}`", f"`{target}`, read-only"]
    for suffix, target in run.volumes.items():
        yield [f"volume SERVICE-{suffix}", f"`{target}`; stays until somebody removes it"]
    if run.tmpfs:
        yield ["in memory", spans(run.tmpfs)]
    if run.healthcheck:
        check = run.healthcheck
        yield ["Docker's own check", f"every {span(check.interval)}, {check.retries} failures"]
    yield ["time to stop", span(run.stop_timeout)]


def _systemd(run: SystemdKind) -> Iterator[list[Any]]:
    yield ["program", f"`{run.program}`, unless `program:` says other"]
    yield ["user", "one of its own, made for as long as it runs (DynamicUser)"]
    yield ["capabilities", "none, and none to be gained"]
    yield ["file system", "read-only but for its own directories; homes hidden where not needed"]
    if run.state:
        yield ["state", "`/var/lib/PROJECT-SERVICE`; stays until somebody removes it"]
    if run.cache:
        yield ["cache", "`/var/cache/PROJECT-SERVICE`; kept over restarts"]
    yield ["executable memory", "may be made" if run.jit else "cannot be made"]
    yield ["netlink", "allowed" if run.netlink else "refused"]
    if run.whole_machine:
        yield ["processes", "sees those of the machine, and may read homes"]
    yield ["most processes", run.tasks]
    yield ["time to stop", span(run.stop_timeout)]


def _process(run: ProcessKind) -> Iterator[list[Any]]:
    embedded = run.embedded is not None
    yield ["program", f"`program:`{'; on this machine itself the embedded one' * embedded}"]
    yield ["confined", "no: it has the rights of its user"]
