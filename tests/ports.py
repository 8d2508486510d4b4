"""Free TCP ports of 127.0.0.1 for servers that a test starts later.

They lie below the range from which the kernel takes the ports of outgoing connections, and every
process begins at another place and goes on from there: nobody takes one before its server does.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _RANGE = 12000, 20000
# A prime, so that the processes of one session, whose numbers are near, begin far from each other.
_NUMBERS = itertools.count(os.getpid() * 7919)


def free_port() -> int:
    """Return a port at which nothing listens; this process does not give it out again soon."""
    for _ in range(_RANGE):
        port = _FIRST + next(_NUMBERS) % _RANGE
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError("no port is free")
