"""An engine that streams tokens at a fixed pace, and clients that read many streams at once.

Both are bare asyncio, so that what stands between them is what is measured:
`python -m benchmarks.streams engine PORT` and `... load PORT COUNT TOKENS PAUSE`, which prints
JSON: for every stream the seconds to its first token, for all of them the lateness of tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

MODEL = "bench"
KEY = "sk-bench-0123456789abcdef"
# All clients start within this time: as many handshakes at once would measure the accept queue.
RAMP_SECONDS = 2.0


async def _engine(port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size) or b"{}")
                await _stream(writer, int(body.get("max_tokens", 1)), float(body.get("seed", 0)))
                if b"connection: close" in head:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def _event(value: object) -> bytes:
    data = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _stream(writer: asyncio.StreamWriter, tokens: int, pause_ms: float) -> None:
    """tokens at multiples of the pause after the request; the seed carries the pause."""
    began = asyncio.get_running_loop().time()
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    choice = {"index": 0, "delta": {"content": " token"}, "finish_reason": None}
    event = _event({**base, "choices": [choice]})
    for number in range(tokens):
        wait = began + number * pause_ms / 1000 - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        writer.write(event)
        await writer.drain()
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    done = {"index": 0, "delta": {}, "finish_reason": "stop"}
    end = _event({**base, "choices": [done]}) + _event({**base, "choices": [], "usage": usage})
    writer.write(end + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


async def one(port: int, tokens: int, pause_ms: float) -> tuple[float, list[float]]:
    """Seconds to the first token of a stream, and when each token came, since its start."""
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Tell me a long story, please."}],
            "stream": True,
            "max_tokens": tokens,
            "seed": int(pause_ms),
        }
    ).encode()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % (KEY.encode(), len(body))
        + body
    )
    came: list[float] = []
    rest = b""
    while data := await reader.read(65536):
        now = time.perf_counter() - began
        rest += data
        seen = rest.count(b'" token"')
        if seen:
            rest = rest[rest.rindex(b'" token"') + 8 :]
            came += [now] * seen
    writer.close()
    if len(came) != tokens:
        raise RuntimeError(f"{len(came)} of {tokens} tokens came: {rest[-300:]!r}")
    return came[0], came


async def load(port: int, count: int, tokens: int, pause_ms: float) -> dict[str, Any]:
    """count streams at once."""

    async def later(number: int) -> tuple[float, list[float]]:
        await asyncio.sleep(number * RAMP_SECONDS / count)
        return await one(port, tokens, pause_ms)

    done = await asyncio.gather(*(later(n) for n in range(count)), return_exceptions=True)
    good = [found for found in done if not isinstance(found, BaseException)]
    # A token is late by what it comes after its moment, counted from its stream's first one.
    late = sorted(
        at - came[0] - number * pause_ms / 1000
        for _, came in good
        for number, at in enumerate(came)
    )
    failed = [repr(found) for found in done if isinstance(found, BaseException)]
    return {
        "first": sorted(first for first, _ in good),
        "late_p50": late[len(late) // 2] if late else None,
        "late_p99": late[len(late) * 99 // 100] if late else None,
        "failed": len(failed),
        "why": failed[:3],
    }


async def alone(port: int, count: int) -> dict[str, Any]:
    """count streams of one token, one after the other."""
    return {"first": sorted([(await one(port, 1, 0))[0] for _ in range(count)])}


def main(words: list[str]) -> None:
    """One of the roles; see above."""
    match words:
        case ["engine", port]:
            asyncio.run(_engine(int(port)))
        case ["load", port, count, tokens, pause]:
            found = load(int(port), int(count), int(tokens), float(pause))
            print(json.dumps(asyncio.run(found)))
        case ["alone", port, count]:
            print(json.dumps(asyncio.run(alone(int(port), int(count)))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
