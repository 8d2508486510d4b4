"""Restarting what hangs, at most so often that a machine is never worn out by it."""

from __future__ import annotations

from datetime import UTC, datetime

from inferfleet.apply.apply import operator
from inferfleet.errors import LOCKED, FleetError
from inferfleet.observe.journal import Lock
from inferfleet.remote import program
from inferfleet.run.session import Session

WINDOW_SECONDS = 3600
# Stopping may take the whole stop-timeout of a container, starting a little more.
SCRIPT_SECONDS = 300.0


def revive(session: Session, service: str, most: int) -> tuple[bool, str]:
    """Restart one service unless that was done `most` times within the last hour.

    Returns whether it was restarted, and what to say. The machine itself remembers the restarts,
    so that operators, cron jobs and CI count together. Raises FleetError (code LOCKED) while
    another run is at work there, and when the restart fails.
    """
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    script = program(
        "lock", "revive", root=session.release.root, service=service, most=most,
        window=WINDOW_SECONDS, who=operator(), when=when, what="health --restart",
    )  # fmt: skip
    done = session.host.run(script, sudo=session.sudo, timeout=SCRIPT_SECONDS)
    machine = session.host.name
    for line in done.out.splitlines():
        record, _, rest = line.partition("\t")
        match record:
            case "restarted":
                return True, f"has been restarted ({rest} of {most} in an hour)"
            case "given-up":
                return False, (
                    f"gave up after {rest} restarts in an hour: look at `invoke logs --service "
                    f"{service}`, then `invoke restart --service {service}`"
                )
            case "error":
                kind, _, detail = rest.partition("\t")
                if kind == "locked":
                    holder = Lock.parse(detail, alive=True)
                    raise FleetError(f"{machine} is locked by {holder}", code=LOCKED)
                raise FleetError(f"{machine}: restarting {service} failed: {detail}")
    raise FleetError(
        f"{machine}: restarting {service} ended without a word: {done.err.strip()[:300]}"
    )
