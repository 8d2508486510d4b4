"""What is asked of an Ollama to record it: each request in its order, for one life of a store.

In a path or a body {weights} is the digest of a small GGUF, {registry} the address of a registry
that speaks HTTP and has the model library/tiny.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MISSING = f"sha256:{'0' * 64}"
_HELLO = [{"role": "user", "content": "Hello"}]
_SHORT = {"num_predict": 4, "temperature": 0, "seed": 1}
# Of the reference system: context 32,768, batch 512, all layers on the GPU, a system prompt.
_PARAMETERS = {"num_ctx": 32768, "num_batch": 512, "num_gpu": 99, "stop": ["<halt>"]}
_SYSTEM = "You are a helpful assistant."
_MINE = {"model": "mine", "from": "base:q8", "parameters": _PARAMETERS, "system": _SYSTEM}


@dataclass(frozen=True)
class Ask:
    """One request. body: JSON, text as it is, or None; "weights" stands for the GGUF's bytes."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"


def _get(name: str, path: str, method: str = "GET") -> Ask:
    return Ask(name, path, None, method)


def _create(name: str, **body: Any) -> Ask:
    return Ask(name, "/api/create", body)


def _pull(name: str, model: str, **body: Any) -> Ask:
    return Ask(name, "/api/pull", {"model": model, **body})


EMPTY = (
    _get("says hello", "/"),
    _get("says hello to HEAD", "/", "HEAD"),
    _get("version", "/api/version"),
    _get("no models", "/api/tags"),
    _get("no models, OpenAI", "/v1/models"),
    _get("nothing runs", "/api/ps"),
    _get("unknown path", "/api/nothing"),
    _get("wrong method", "/api/generate"),
    _get("no such blob", f"/api/blobs/{_MISSING}", "HEAD"),
    Ask("blob", "/api/blobs/{weights}", "weights"),
    Ask("blob again", "/api/blobs/{weights}", "weights"),
    Ask("blob of another digest", f"/api/blobs/{_MISSING}", "weights"),
    Ask("blob of a bad digest", "/api/blobs/sha256:xyz", "weights"),
    _get("blob is there", "/api/blobs/{weights}", "HEAD"),
)
CREATE = (
    _create("create from a missing blob", model="x", files={"x.gguf": _MISSING}),
    _create("create from weights", model="base:q8", files={"tiny.gguf": "{weights}"}),
    _create("create from parts", **_MINE),
    _create("create the same again", **_MINE, stream=False),
    _create("create with another prompt", **{**_MINE, "model": "other", "system": "Be brief."}),
    _create("create with a template", model="templated", **{"from": "mine"},
            template="{{ .System }} {{ .Prompt }}"),
    _create("template that is refused", model="x", **{"from": "base:q8"}, template="{{ .Prompt"),
    _create("template that is refused, whole", model="x", **{"from": "base:q8"},
            template="{{ .Prompt", stream=False),
    _create("template of unknown fields", model="x", **{"from": "base:q8"}, template="{{ .Who }}"),
    _create("unknown parameter", model="strange", **{"from": "base:q8"},
            parameters={"nonsense": 1}),
    _create("parameter of a wrong type", model="wrong", **{"from": "base:q8"},
            parameters={"num_ctx": "many"}),
    _create("stop as text", model="stop", **{"from": "base:q8"}, parameters={"stop": "a"}),
    _create("create from nothing", model="x"),
    _create("create without a name", **{"from": "base:q8"}),
    _create("create under a bad name", model="a b", **{"from": "base:q8"}),
    _create("create from a bad name", model="x", **{"from": "a b"}),
    Ask("create without a body", "/api/create", ""),
    Ask("create from no JSON", "/api/create", "{"),
    Ask("an unknown path", "/api/nothing", {"model": "x"}),
    _create("create from what is not to be had", model="y", **{"from": "127.0.0.1:1/library/none"}),
)  # fmt: skip
LISTS = (
    _get("models", "/api/tags"),
    _get("models, OpenAI", "/v1/models"),
    Ask("show", "/api/show", {"model": "mine"}),
    Ask("show by its whole name", "/api/show", {"model": "registry.ollama.ai/library/mine:latest"}),
    Ask("show a template", "/api/show", {"model": "templated"}),
    Ask("show the base", "/api/show", {"model": "base:q8"}),
    Ask("show what is not there", "/api/show", {"model": "none"}),
    Ask("show a bad name", "/api/show", {"model": "a b"}),
    Ask("show nothing", "/api/show", {}),
)
GENERATE = (
    Ask("load", "/api/generate", {"model": "mine"}),
    _get("runs", "/api/ps"),
    Ask("generate", "/api/generate",
        {"model": "mine", "prompt": "Hello", "stream": False, "options": _SHORT}),
    Ask("generate, streamed", "/api/generate",
        {"model": "mine", "prompt": "Hello", "options": _SHORT}),
    Ask("the probe", "/api/generate",
        {"model": "mine", "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}),
    Ask("chat", "/api/chat",
        {"model": "mine", "messages": _HELLO, "stream": False, "options": _SHORT}),
    Ask("chat, streamed", "/api/chat", {"model": "mine", "messages": _HELLO, "options": _SHORT}),
    Ask("chat of no messages", "/api/chat", {"model": "mine", "messages": []}),
    Ask("generate with what is not there", "/api/generate", {"model": "none", "prompt": "Hi"}),
    Ask("generate under a bad name", "/api/generate", {"model": "a b", "prompt": "Hi"}),
    Ask("generate without a name", "/api/generate", {"prompt": "Hi"}),
    Ask("generate without a body", "/api/generate", ""),
    Ask("generate from no JSON", "/api/generate", "{"),
    Ask("chat with what is not there", "/api/chat", {"model": "none", "messages": _HELLO}),
    Ask("chat without a name", "/api/chat", {"messages": _HELLO}),
    Ask("option of a wrong type", "/api/generate",
        {"model": "mine", "prompt": "Hi", "options": {"num_ctx": "many"}}),
    Ask("wrong parameter of the model", "/api/generate", {"model": "wrong", "prompt": "Hi"}),
    Ask("unknown parameter of the model", "/api/generate",
        {"model": "strange", "prompt": "Hi to all", "stream": False, "options": _SHORT}),
    Ask("stop as text in the model", "/api/generate", {"model": "stop", "prompt": "Hi"}),
    Ask("put away", "/api/generate", {"model": "mine", "keep_alive": 0}),
)  # fmt: skip
_CHAT = {"model": "mine", "messages": _HELLO, "max_tokens": 4, "temperature": 0, "seed": 1}
OPENAI = (
    Ask("completion of a chat", "/v1/chat/completions", _CHAT),
    Ask("completion of a chat, streamed", "/v1/chat/completions", {**_CHAT, "stream": True}),
    Ask("completion with usage, streamed", "/v1/chat/completions",
        {**_CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    Ask("OpenAI, what is not there", "/v1/chat/completions", {**_CHAT, "model": "none"}),
    Ask("OpenAI, without a name", "/v1/chat/completions", {"messages": _HELLO}),
    Ask("OpenAI, no messages", "/v1/chat/completions", {**_CHAT, "messages": []}),
    Ask("OpenAI, without a body", "/v1/chat/completions", ""),
    Ask("OpenAI, no JSON", "/v1/chat/completions", "{"),
)  # fmt: skip
PULL = (
    _pull("pull", "http://{registry}/library/tiny", insecure=True),
    _pull("pull again", "http://{registry}/library/tiny", insecure=True),
    _pull("pull, whole", "http://{registry}/library/tiny", insecure=True, stream=False),
    _pull("pull without a network", "127.0.0.1:1/library/none"),
    _pull("pull what is not there", "http://{registry}/library/none", insecure=True),
    _pull("pull what is not there, whole", "http://{registry}/library/none", insecure=True,
          stream=False),
    _pull("pull damaged weights", "http://{registry}/library/damaged", insecure=True),
    _pull("pull under a bad name", "a b"),
    _pull("pull nothing", ""),
    Ask("pull without a body", "/api/pull", ""),
    Ask("pull no JSON", "/api/pull", "{"),
)  # fmt: skip
DELETE = (
    Ask("delete", "/api/delete", {"model": "other"}, "DELETE"),
    Ask("delete what is not there", "/api/delete", {"model": "other"}, "DELETE"),
    Ask("delete under a bad name", "/api/delete", {"model": "a b"}, "DELETE"),
    Ask("delete without a body", "/api/delete", "", "DELETE"),
    _get("models after all", "/api/tags"),
)
GROUPS = {
    "empty": EMPTY, "create": CREATE, "lists": LISTS, "generate": GENERATE, "openai": OPENAI,
    "pull": PULL, "delete": DELETE,
}  # fmt: skip
