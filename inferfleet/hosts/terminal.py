"""This terminal joined to a channel with a pseudo-terminal."""

from __future__ import annotations

import os
import selectors
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from paramiko import Channel
from paramiko.ssh_exception import SSHException

CHUNK = 1 << 14
# How often a change of the window size is looked for, in seconds; a signal handler would only
# work in the main thread.
RESIZE_SECONDS = 0.25
END_OF_INPUT = b"\x04"
STDIN, STDOUT, STDERR = 0, 1, 2


@contextmanager
def joined(channel: Channel) -> Iterator[Callable[[], None]]:
    """Ask for a pseudo-terminal of this one's size; yields the function that copies both ways.

    Keys go to the other side as they are (raw mode) while copying; the terminal is put back
    in every case. Without a terminal here there is none there either: input is copied up to
    its end, which the other side sees, and the two outputs stay apart.
    """
    sys.stdout.flush()
    if not os.isatty(STDIN):
        yield lambda: _pipe(channel)
        return
    columns, rows = _size()
    channel.get_pty(os.environ.get("TERM", "xterm"), columns, rows)
    saved = termios.tcgetattr(STDIN)

    def copy() -> None:
        tty.setraw(STDIN)
        _copy(channel, (columns, rows))

    try:
        yield copy
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, saved)


def _pipe(channel: Channel) -> None:
    """Copy without a terminal; returns at the end of both outputs."""

    def feed() -> None:
        with suppress(OSError, SSHException):
            while data := os.read(STDIN, CHUNK):
                channel.sendall(data)
            channel.shutdown_write()

    def errors() -> None:
        while data := channel.recv_stderr(CHUNK):
            _write(data, STDERR)

    reader = threading.Thread(target=errors, daemon=True)
    reader.start()
    threading.Thread(target=feed, daemon=True).start()
    while data := channel.recv(CHUNK):
        _write(data)
    reader.join()


def _copy(channel: Channel, size: tuple[int, int]) -> None:
    with selectors.DefaultSelector() as events:
        events.register(channel, selectors.EVENT_READ)
        events.register(STDIN, selectors.EVENT_READ)
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
            if STDIN in ready:
                keys = os.read(STDIN, CHUNK)
                if not keys:
                    events.unregister(STDIN)
                channel.sendall(keys or END_OF_INPUT)


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(STDOUT)
    except OSError:
        return 80, 24
    return size.columns, size.lines


def _write(data: bytes, to: int = STDOUT) -> None:
    while data:
        data = data[os.write(to, data) :]
