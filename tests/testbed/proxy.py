"""A TCP proxy on loopback that can lose the connection at a chosen byte, stall it or slow it."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from types import TracebackType

_CHUNK = 16384


class Proxy:
    """Forwards connections made to 127.0.0.1:port to a target until it is told to misbehave.

    up is what the client sends, down what the target answers; both count payload bytes over all
    connections since the proxy started. latency_s delays every byte by that many seconds in
    each direction; slept_s adds up the delays that were waited for.
    """

    def __init__(self, host: str, port: int, *, latency_s: float = 0.0) -> None:
        self.target = (host, port)
        self.latency_s = latency_s
        self.refusing = False
        self.cuts = 0
        self.up = 0
        self.down = 0
        self.slept_s = 0.0
        self._limits: dict[str, int | None] = {"up": None, "down": None}
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Cut every connection once that many more bytes went up or down; then carry on."""
        with self._lock:
            self._limits = {
                "up": None if up is None else self.up + up,
                "down": None if down is None else self.down + down,
            }

    def cut(self) -> None:
        """Reset every open connection now; new ones are served unless refusing is set."""
        with self._lock:
            self._cut_locked()

    def stall(self) -> None:
        """Keep the connections open but deliver nothing, like a network that drops packets."""
        self._flowing.clear()

    def resume(self) -> None:
        """Deliver again after stall."""
        self._flowing.set()

    def close(self) -> None:
        """Reset what is open and stop listening."""
        self.cut()
        self._flowing.set()
        # shutdown wakes the thread that waits in accept; close alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cut_locked(self) -> None:
        self.cuts += 1
        self._limits = {"up": None, "down": None}
        for end in self._sockets:
            with contextlib.suppress(OSError):
                # Linger 0 makes the peer see a reset, as after a lost machine.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)
                end.close()
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target, timeout=10)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            self._pump(client, server, "up")
            self._pump(server, client, "down")

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
        for step in (self._read, self._write):
            threading.Thread(target=step, args=(source, sink, way, waiting), daemon=True).start()

    def _read(
        self,
        source: socket.socket,
        sink: socket.socket,
        way: str,
        waiting: queue.Queue[tuple[float, bytes]],
    ) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self.latency_s, data))

    def _write(
        self,
        source: socket.socket,
        sink: socket.socket,
        way: str,
        waiting: queue.Queue[tuple[float, bytes]],
    ) -> None:
        while True:
            due, data = waiting.get()
            delay = due - time.monotonic()
            if delay > 0:
                time.sleep(delay)
                with self._lock:
                    self.slept_s += delay
            self._flowing.wait()
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                allowed, last = self._count(way, len(data))
                sink.sendall(data[:allowed])
            except OSError:
                return
            if last:
                self.cut()
                return

    def _count(self, way: str, size: int) -> tuple[int, bool]:
        """Count size bytes; return how many of them may pass and whether the cut comes now."""
        with self._lock:
            passed = self.up if way == "up" else self.down
            limit = self._limits[way]
            allowed = size if limit is None else max(0, min(size, limit - passed))
            if way == "up":
                self.up += allowed
            else:
                self.down += allowed
            return allowed, limit is not None and passed + size >= limit
