"""The forms in which Ollama says what a model answers: its own two, and OpenAI's."""

from __future__ import annotations

import time
from collections.abc import Iterator

from testbed.ollama_api import Api
from testbed.ollama_store import Answer, Refused, stamp


def generate(ollama: Api, body: Answer) -> list[Answer]:
    """/api/generate: a line for each word and the end, or one for all."""
    _, text, figures = ollama.generate(body, str(body.get("prompt") or ""))
    head = {"model": body["model"], "created_at": stamp(time.time())}
    if "eval_count" not in figures:  # loaded, or put away
        return [{**head, "response": "", "done": True, **figures}]
    # The tokens of the whole talk so far, for a client that goes on with it.
    figures["context"] = list(range(figures["eval_count"] + figures["prompt_eval_count"]))
    if body.get("stream") is False:
        return [{**head, "response": text, "done": True, **figures}]
    words = [{**head, "response": f"{word} ", "done": False} for word in text.split()]
    return [*words, {**head, "response": "", "done": True, **figures}]


def chat(ollama: Api, body: Answer) -> list[Answer]:
    """/api/chat: the same with messages."""
    text, figures = _talk(ollama, body)
    head = {"model": body["model"], "created_at": stamp(time.time())}
    whole = body.get("stream") is False or "eval_count" not in figures
    pieces = [text] if whole else [*(f"{word} " for word in text.split()), ""]
    lines = [
        {**head, "message": {"role": "assistant", "content": piece}, "done": False}
        for piece in pieces
    ]
    lines[-1] |= {"done": True, **figures}
    return lines


def completion(ollama: Api, body: Answer) -> Answer | Iterator[Answer]:
    """/v1/chat/completions: one object, or the pieces of a stream."""
    options = {"num_predict": body["max_tokens"]} if "max_tokens" in body else {}
    if body.get("model") and not body.get("messages"):
        raise Refused(400, "[] is too short - 'messages'")
    text, figures = _talk(ollama, {**body, "options": options})
    used = (figures["prompt_eval_count"], figures["eval_count"])
    usage = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}
    head = {"id": "chatcmpl-1", "created": int(time.time()), "model": body["model"],
            "system_fingerprint": "fp_ollama"}  # fmt: skip
    reason = figures["done_reason"]
    if not body.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    chunk = {**head, "object": "chat.completion.chunk"}
    return _chunks(chunk, text, reason, body.get("stream_options") or {}, usage)


def _chunks(
    head: Answer, text: str, reason: str, options: Answer, usage: Answer
) -> Iterator[Answer]:
    role = {"role": "assistant"}
    for word in text.split():
        delta = {**role, "content": f"{word} "}
        role = {}
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if options.get("include_usage"):
        yield {**head, "choices": [], "usage": usage}


def _talk(ollama: Api, body: Answer) -> tuple[str, Answer]:
    if not body.get("model"):
        raise Refused(400, "model is required")
    messages = body.get("messages") or []
    _, text, figures = ollama.generate(body, str(messages[-1]["content"]) if messages else "")
    return text, figures
