"""SSH channels that say nothing more once they have said that they are closed."""

from __future__ import annotations

import threading
from typing import Any

from paramiko import Channel, Message
from paramiko.common import cMSG_CHANNEL_CLOSE


class _Orderly:
    """A channel's transport that drops what the channel sends after its CLOSE (RFC 4254, 5.3).

    paramiko makes a message under the channel's lock and sends it after letting go of it, so a
    thread that closes the channel can overtake one that ends its input. OpenSSH cuts the whole
    connection for what comes too late ("packet referred to nonexistent channel").
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_user_message(self, message: Message) -> None:
        with self._lock:
            if not self._closed:
                self._closed = message.asbytes()[:1] == cMSG_CHANNEL_CLOSE
                self._transport._send_user_message(message)


def orderly(channel: Channel) -> Channel:
    """The same channel, just opened, whose messages no longer overtake each other at its end."""
    channel.transport = _Orderly(channel.transport)  # type: ignore[assignment]
    return channel
