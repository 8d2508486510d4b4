"""How often a service that ends by itself is started again; pure.

A crash loop must end: where CPU and GPU share one memory, an engine that runs out of it can take
the machine with it, and a machine that is started again would meet the same engine again. What
each runtime can do of that:

systemd and process count restarts within a window. It has to hold all attempts: an engine that
loads for five minutes before it fails would never make four starts in ten minutes.

Docker's bounded policy (on-failure:N) counts from the container's start and forgets nothing but at
a reboot, and takes exit 0 for an end that was wanted, before a reboot, too; its other policy,
unless-stopped, has no bound, only a pause that doubles up to a minute. The bounded one is for
engines on the GPU of a machine with shared memory and for services that ask for it. All others
must come back after a clean reboot, a gateway or an exporter that ends with 0 above all; their
crash loop costs a start a minute at most, and a service that fails once a month must not be given
up after three months.
A container that has used up its restarts stays stopped over reboots and lost power (seen with
Docker 20.10): no machine is drawn into the same crash by its own start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferfleet.schema.restart import Restart

MAX = 3
WINDOW = 600
BACKOFF = 2
# Memory that an engine had comes back late there, up to a minute after its end.
SHARED_BACKOFF = 60


@dataclass(frozen=True)
class Policy:
    """At most max restarts in window seconds, the first after backoff seconds.

    bounded: Docker has to keep to it, too.
    """

    max: int
    window: int
    backoff: int
    bounded: bool

    @property
    def docker(self) -> str:
        """The restart policy of a container."""
        if not self.bounded:
            return "unless-stopped"
        return f"on-failure:{self.max}" if self.max else "no"


def policy(
    service: Restart | None,
    machine: Restart | None,
    start_timeout: int,
    takes_shared_memory: bool,
    autostart: bool,
) -> Policy:
    """What holds for one service: its own words, the machine's, the defaults, key by key.

    takes_shared_memory: it uses a GPU whose memory is the machine's.
    """
    own = [keys for keys in (service, machine) if keys is not None]
    asked = next((keys.max for keys in own if keys.max is not None), None)
    pause = next((keys.backoff for keys in own if keys.backoff), None)
    window = next((keys.window for keys in own if keys.window), None)
    most = MAX if asked is None else asked
    backoff = pause or (SHARED_BACKOFF if takes_shared_memory else BACKOFF)
    return Policy(
        max=most,
        window=window or max(WINDOW, (most + 1) * (start_timeout + backoff)),
        backoff=backoff,
        bounded=asked is not None or takes_shared_memory or not autostart,
    )
