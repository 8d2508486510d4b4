"""Ports of remote services on this machine, as long as the tunnel is open."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from inferfleet.errors import OK, FleetError
from inferfleet.health.ready import reachable
from inferfleet.operations.endpoints import endpoints
from inferfleet.show import output, say

if TYPE_CHECKING:
    from inferfleet.run.run import Run


def open_tunnels(run: Run, seconds: float, form: str) -> int:
    """Forward every chosen service's port here; a port in use here gets a free one instead."""
    rows: list[dict[str, Any]] = []
    columns = ["service", "machine", "base_url", "model"]
    if all(run.brief(name).local for name in run.machines):
        for name in run.machines:
            chosen = run.services[name]
            rows += [
                {"service": e.service, "machine": name, "model": e.model, "base_url": e.base_url}
                for e in endpoints(run.brief(name))
                if chosen is None or e.service in chosen
            ]
        output(rows, columns, form, "no services")
        say("these are on this machine: there is nothing to forward")
        return OK
    with ExitStack() as stack:
        for name in run.machines:
            chosen = run.services[name]
            session = run.session(name, lenient=True)
            stack.callback(session.host.close)
            session.host.connect()
            for found in endpoints(run.brief(name)):
                if chosen is not None and found.service not in chosen:
                    continue
                unit = session.release.units[found.service]
                if unit.address is None:
                    continue
                ip, port = reachable(unit.address[0]), unit.address[1]
                try:
                    local = stack.enter_context(session.host.forward(port, port, address=ip))
                except FleetError:
                    local = stack.enter_context(session.host.forward(port, 0, address=ip))
                tail = "/v1" if found.api == "openai" else ""
                rows.append(
                    {
                        "service": found.service, "machine": name, "model": found.model,
                        "base_url": f"http://127.0.0.1:{local}{tail}",
                    }
                )  # fmt: skip
        output(rows, columns, form, "no services")
        sys.stdout.flush()
        say("open until interrupted" if not seconds else f"open for {seconds:g} s")
        deadline = time.monotonic() + seconds
        while not seconds or time.monotonic() < deadline:
            time.sleep(0.2)
    return OK
