"""This terminal joined to a channel with a pseudo-terminal."""

from __future__ import annotations

import os
import selectors
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paramiko import Channel

CHUNK = 1 << 14
# How often a change of the window size is looked for, in seconds; a signal handler would only
# work in the main thread.
RESIZE_SECONDS = 0.25
END_OF_INPUT = b"\x04"


@contextmanager
def joined(channel: Channel) -> Iterator[Callable[[], None]]:
    """Ask for a pseudo-terminal of this one's size; yields the function that copies both ways.

    Keys go to the other side as they are (raw mode) while copying; the terminal is put back
    in every case. Without a terminal here input is copied up to its end.
    """
    sys.stdout.flush()
    columns, rows = _size()
    channel.get_pty(os.environ.get("TERM", "xterm"), columns, rows)
    saved = termios.tcgetattr(0) if os.isatty(0) else None

    def copy() -> None:
        if saved is not None:
            tty.setraw(0)
        _copy(channel, (columns, rows))

    try:
        yield copy
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _copy(channel: Channel, size: tuple[int, int]) -> None:
    with selectors.DefaultSelector() as events:
        events.register(channel, selectors.EVENT_READ)
        if _selectable():
            events.register(0, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in events.select(RESIZE_SECONDS)]
            if _size() != size:
                size = _size()
                channel.resize_pty(*size)
            if channel in ready:
                data = channel.recv(CHUNK)
                if not data:
                    return
                _write(data)
            if 0 in ready:
                keys = os.read(0, CHUNK)
                if not keys:
                    events.unregister(0)
                channel.sendall(keys or END_OF_INPUT)


def _selectable() -> bool:
    """Plain files and a closed input cannot be waited for; a script gets no input from them."""
    with selectors.DefaultSelector() as probe:
        try:
            probe.register(0, selectors.EVENT_READ)
        except (OSError, ValueError):
            return False
        return True


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 80, 24
    return size.columns, size.lines


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
