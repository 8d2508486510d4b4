"""Tasks that only look: status, health, logs, shell, history, endpoints, tunnel, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from inferfleet.errors import FAILED, OK, USAGE, FleetError
from inferfleet.tasks.edge import as_called, overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.parallel import Answer
    from inferfleet.run.run import Run


@verb(aliases=("ps",))
def status(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Show what runs: state, address, generation, and what differs from the inventory."""
    from inferfleet.operations.status import status_rows, unreachable_row
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run
    from inferfleet.show import output

    run = Run(overlay(c), host or (), group or (), service or ())
    answers = on_each(
        run.machines,
        lambda name: status_rows(
            run.session(name, lenient=True),
            run.services[name],
            gpus=run.brief(name).gpu,
            ground=run.ground(name) if run.brief(name).watched else None,
        ),
    )
    rows = []
    for answer in answers:
        if answer.error:
            rows.append(unreachable_row(answer.machine, answer.error))
        rows += answer.value or []
    columns = ["machine", "service", "state", "address", "generation", "detail"]
    output(rows, columns, format, "no services")
    return _errors(answers)


@verb(
    help={
        "wait": "go on until all is well, at most this long, such as 5m; default 0",
        "watch": "look again and again; print what changes",
        "interval": "pause between two looks of a watch; default 10s",
        "for": "end a watch after this long, such as 5m; default: until interrupted",
        "restart": "restart what is stuck or silent twice, within the bound of --at-most",
        "at-most": "restarts of one service in an hour, counted on its machine; default 3",
    }
)
def health(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    wait: str = "0",
    watch: bool = False,
    interval: str = "",
    for_: str = "",
    restart: bool = False,
    at_most: str = "",
    format: str = "table",
) -> int:
    """Ask every service for one token; exit 3 if one is not well."""
    from inferfleet.amounts import parse_span
    from inferfleet.operations.watch import Wanted, check_health
    from inferfleet.run.run import Run

    spans = {"--wait": wait, "--interval": interval or "10s", "--for": for_ or "0"}
    seconds = {}
    for name, text in spans.items():
        try:
            seconds[name] = parse_span(text)
        except ValueError as error:
            raise FleetError(f"health: {name} {text}: {error}", code=USAGE) from None
    for name, given in {"--for": for_, "--interval": interval}.items():
        if given and not watch:
            hint = f"`invoke health --watch {name} {given}`"
            raise FleetError(f"health: {name} belongs to --watch", hint, code=USAGE)
    if watch and seconds["--wait"]:
        hint = "`invoke health --watch --for 5m`"
        raise FleetError("health: --wait and --watch exclude each other", hint, code=USAGE)
    if at_most and not restart:
        hint = f"`invoke health --restart --at-most {at_most}`"
        raise FleetError("health: --at-most belongs to --restart", hint, code=USAGE)
    if at_most and not (at_most.isascii() and at_most.isdigit() and int(at_most)):
        what = f"health: --at-most {at_most} is not a number of restarts, 1 or more"
        raise FleetError(what, code=USAGE)
    wanted = Wanted(
        wait=seconds["--wait"],
        watch=watch,
        interval=seconds["--interval"],
        span=seconds["--for"],
        most=int(at_most or 3) if restart else 0,
    )
    run = Run(overlay(c), host or (), group or (), service or ())
    return check_health(run, wanted, format, called=as_called)


@verb(
    help={
        "follow": "keep printing new lines until interrupted",
        "lines": "last lines to begin with; default 100",
    },
    shorts={"follow": "f"},
)
def logs(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    lines: int = 100,
    follow: bool = False,
) -> int:
    """Print the logs of services; with several, each line says whose it is."""
    from inferfleet.operations.logs import stream_logs
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    errors = stream_logs(run, lines, follow)
    for error in errors:
        report(error)
    return FAILED if errors else OK


@verb(
    help={
        "host": "machine of the inventory, one; default: local",
        "service": "in the container of this service, one",
        "command": "run this there instead; its exit code is ours",
    }
)
def shell(
    c: Context,
    host: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    command: str = "",
) -> int:
    """Open a shell on the machine, or in the container of a service; or run one command."""
    from inferfleet.operations.shell import shell_script
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), (), service or ())
    if len(run.machines) != 1 or len(service or ()) > 1:
        raise FleetError("shell opens one at a time", "give one --host, one --service", code=USAGE)
    session = run.session(run.machines[0], lenient=True)
    script = shell_script(session.release, service[0] if service else None, command)
    return session.host.interact(script, sudo=session.sudo)


@verb()
def history(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """List what was applied to a machine, by whom, and which generations are kept."""
    from datetime import UTC, datetime

    from inferfleet.apply.generations import read_history
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run
    from inferfleet.show import output

    run = Run(overlay(c), host or (), group or ())

    def work(name: str) -> list[dict[str, Any]]:
        session = run.session(name, lenient=True)
        return [
            {
                "machine": name,
                "when": datetime.fromtimestamp(entry.when, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
                "who": entry.who,
                "event": entry.event,
                "from": entry.source,
                "generation": entry.to,
                "kept": entry.kept,
                "current": entry.current,
                "checkout": entry.by,
            }
            for entry in read_history(session.host, session.release.root, session.sudo)
        ]

    answers = on_each(run.machines, work)
    columns = ["machine", "when", "who", "event", "from", "generation", "kept", "current"]
    columns.append("checkout")
    output(_rows(answers), columns, format)
    return _errors(answers)


@verb()
def endpoints(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """List what a consumer connects to: base URL, model, and whether it takes a tunnel."""
    from inferfleet.operations.endpoints import endpoints as find
    from inferfleet.run.run import Run
    from inferfleet.show import output

    run = Run(overlay(c), host or (), group or (), service or ())
    rows = [asdict(found) for found in _chosen(run, find)]
    output(rows, ["service", "machine", "base_url", "model", "api", "reach"], format)
    return OK


@verb(help={"seconds": "close after this long, such as 90 or 5m; default: until interrupted"})
def tunnel(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    seconds: str = "",
    format: str = "table",
) -> int:
    """Forward the services' ports of machines to this one until interrupted."""
    from inferfleet.amounts import parse_span
    from inferfleet.operations.tunnel import open_tunnels
    from inferfleet.run.run import Run

    try:
        span = parse_span(seconds or "0")
    except ValueError as error:
        raise FleetError(f"tunnel: --seconds {seconds}: {error}", code=USAGE) from None
    run = Run(overlay(c), host or (), group or (), service or ())
    return open_tunnels(run, span, format)


@verb()
def doctor(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Say what is missing here and on the machines, each finding with its remedy."""
    from inferfleet.operations.doctor import FAIL, check_here, check_machine
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run
    from inferfleet.show import output

    rows = [asdict(finding) for finding in check_here()]
    run = Run(overlay(c), host or (), group or ())
    answers = on_each(run.machines, lambda name: check_machine(run.session(name, lenient=True)))
    for answer in answers:
        if answer.error:
            rows.append(
                {"machine": answer.machine, "check": "connection", "verdict": FAIL,
                 "detail": answer.error.what, "remedy": answer.error.hint}
            )  # fmt: skip
        rows.extend(asdict(finding) for finding in answer.value or ())
    output(rows, ["machine", "check", "verdict", "detail", "remedy"], format)
    return FAILED if any(row["verdict"] == FAIL for row in rows) else OK


def _chosen(run: Run, find: Any) -> list[Any]:
    found = []
    for name in run.machines:
        chosen = run.services[name]
        found += [e for e in find(run.brief(name)) if chosen is None or e.service in chosen]
    return found


def _rows(answers: Sequence[Answer[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    return [row for answer in answers for row in answer.value or ()]


def _errors(answers: Sequence[Answer[Any]]) -> int:
    """Print the machines' errors; 1 if there were any."""
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error)
    return FAILED if errors else OK
