"""An engine that generates tokens at given times and fails as it is told, for tests of what
stands before it. Raw asyncio, so that it is never slow."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field


@dataclass
class Behaviour:
    """tokens: how many, pause: seconds before each; status: of every answer; dies: after so many
    tokens the connection breaks, 0 before any answer; usage: whether the engine tells it;
    split: events come in two parts; hold: no stream has a token while it is true; raw: what a
    stream sends instead."""

    tokens: int = 5
    pause: float = 0.0
    status: int = 200
    dies: int | None = None
    usage: bool = True
    split: bool = False
    hold: bool = False
    raw: tuple[bytes, ...] = ()


@dataclass
class Engine:
    """A server in a thread of its own. seen: (path, headers, body) of every request."""

    name: str = "fake"
    port: int = 0
    behaviour: Behaviour = field(default_factory=Behaviour)
    seen: list[tuple[str, dict[str, str], dict[str, object]]] = field(default_factory=list)
    open: int = 0

    def __enter__(self) -> Engine:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.listen())
        started.set()
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def listen(self) -> None:
        """Begin to listen on port; 0 takes a free one."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, backlog=4096, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or "{}")
        path = head[0].split()[1]
        now = self.behaviour
        if path != "/health":
            self.seen.append((path, headers, body))
        if now.dies == 0 and path != "/health":
            return False
        if now.status != 200:
            answer = b'{"error": {"message": "no"}}'
            writer.write(_head(now.status, "application/json", len(answer)) + answer)
            await writer.drain()
            return True
        if path == "/health":
            writer.write(_head(200, "text/plain", 2) + b"ok")
            await writer.drain()
            return True
        self.open += 1
        try:
            if body.get("stream"):
                return await self._stream(writer, body, now)
            for _ in range(now.tokens):
                await asyncio.sleep(now.pause)
            answer = json.dumps(self._whole(body, now)).encode()
            writer.write(_head(200, "application/json", len(answer)) + answer)
            await writer.drain()
        finally:
            self.open -= 1
        return True

    def _whole(self, body: dict[str, object], now: Behaviour) -> dict[str, object]:
        message = {"role": "assistant", "content": 'x "usage": {"prompt_tokens": 999} ' * 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"usage": _usage(now)} if now.usage else {}
        return {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice],
                **usage, "by": self.name}  # fmt: skip

    async def _stream(
        self, writer: asyncio.StreamWriter, body: dict[str, object], now: Behaviour
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        while now.hold:
            await asyncio.sleep(0.2)
        for part in now.raw:
            writer.write(_chunk(part))
            await writer.drain()
            await asyncio.sleep(0.005)
        for number in range(0 if now.raw else now.tokens):
            if now.dies == number:
                return False
            if now.pause:
                await asyncio.sleep(now.pause)
            delta = {"index": 0, "delta": {"content": f"t{number} "}, "finish_reason": None}
            event = _event({"object": "chat.completion.chunk", "by": self.name, "choices": [delta]})
            for part in (event[:9], event[9:]) if now.split else (event,):
                writer.write(_chunk(part))
                await writer.drain()
                if now.split:
                    await asyncio.sleep(0.005)
        options = body.get("stream_options")
        if now.raw:
            writer.write(b"0\r\n\r\n")
        else:
            if now.usage and isinstance(options, dict) and options.get("include_usage"):
                writer.write(_chunk(_event({"choices": [], "usage": _usage(now)})))
            writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True


def _usage(now: Behaviour) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": now.tokens, "total_tokens": 7 + now.tokens}


def _head(status: int, kind: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
