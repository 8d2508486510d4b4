"""A TCP port on 127.0.0.1 whose connections are carried elsewhere."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from inferfleet.errors import FleetError

CHUNK = 1 << 15


class Peer(Protocol):
    """The far end of one connection: a socket, or a channel that behaves as one."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


def dial(address: str, port: int) -> socket.socket:
    """Connect to address:port from this machine; raises OSError."""
    return socket.create_connection((address, port), timeout=None)


@contextmanager
def relay(connect: Callable[[], Peer], local_port: int = 0) -> Iterator[int]:
    """Listen on 127.0.0.1:local_port (0: a free one), yield the port, carry connections.

    connect opens the far end of one connection; when it raises OSError the near end is closed.
    FleetError when the port cannot be had.
    """
    try:
        listener = socket.create_server(("127.0.0.1", local_port), backlog=64)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FleetError(
            f"cannot listen on 127.0.0.1:{local_port}: {reason}", "choose another local port"
        ) from None
    service = _Relay(listener, connect)
    try:
        yield listener.getsockname()[1]
    finally:
        service.stop()


class _Relay:
    def __init__(self, listener: socket.socket, connect: Callable[[], Peer]) -> None:
        self._listener = listener
        self._connect = connect
        self._lock = threading.Lock()
        self._open: set[Peer] = set()
        self._stopped = False
        self._wake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            ends = list(self._open)
        self._waker.close()
        self._acceptor.join()
        self._listener.close()
        self._wake.close()
        for end in ends:
            _break(end)

    def _accept(self) -> None:
        events = selectors.DefaultSelector()
        events.register(self._listener, selectors.EVENT_READ)
        events.register(self._wake, selectors.EVENT_READ)
        while True:
            if any(key.fileobj is self._wake for key, _ in events.select()):
                events.close()
                return
            try:
                near, _ = self._listener.accept()
            except OSError:
                continue
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = self._connect()
        except OSError:
            near.close()
            return
        with self._lock:
            self._open |= {near, far}
            stopped = self._stopped
        if stopped:
            _break(near)
            _break(far)
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        for end in (near, far):
            with suppress(OSError, EOFError):
                end.close()


def _pump(source: Peer, sink: Peer) -> None:
    """Copy until source ends, then end sink's writing side; an error breaks both."""
    try:
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):
        _break(source)
        _break(sink)


def _break(end: Peer) -> None:
    """Wake whoever reads or writes there; shutting down a channel would not wake its reader."""
    with suppress(OSError, EOFError):
        if isinstance(end, socket.socket):
            end.shutdown(socket.SHUT_RDWR)
        else:
            end.close()
