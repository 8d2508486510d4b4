"""llama.cpp's server inside this Python process, for machines without Docker or llama-server.

Run as a script or with -m; takes the option names of llama-server and refuses those that the
library xllamacpp cannot be told. Exit status: 0 after SIGTERM or SIGINT, 64 wrong usage or no
xllamacpp, 1 otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

USAGE = 64
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


def _flash(text: str) -> str:
    if text not in ("on", "off", "auto"):
        raise ValueError(text)
    return {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[text]


def _layers(text: str) -> int:
    """-1 is the library's automatic choice, -2 its "all"."""
    return {"auto": -1, "all": -2}.get(text) or int(text)


# llama-server's option -> (attribute path in CommonParams, how to read its value).
VALUES: dict[str, tuple[str, Callable[[str], object]]] = {
    "api-prefix": ("api_prefix", str),
    "batch-size": ("n_batch", int),
    "cache-ram": ("cache_ram_mib", int),
    "cache-reuse": ("n_cache_reuse", int),
    "chat-template": ("chat_template", str),
    "ctx-size": ("n_ctx", int),
    "gpu-layers": ("n_gpu_layers", _layers),
    "keep": ("n_keep", int),
    "main-gpu": ("main_gpu", int),
    "min-p": ("sampling.min_p", float),
    "n-gpu-layers": ("n_gpu_layers", _layers),
    "n-predict": ("n_predict", int),
    "parallel": ("n_parallel", int),
    "poll": ("cpuparams.poll", int),
    "predict": ("n_predict", int),
    "presence-penalty": ("sampling.penalty_present", float),
    "repeat-penalty": ("sampling.penalty_repeat", float),
    "rope-freq-base": ("rope_freq_base", float),
    "rope-freq-scale": ("rope_freq_scale", float),
    "seed": ("sampling.seed", int),
    "sleep-idle-seconds": ("sleep_idle_seconds", int),
    "slot-prompt-similarity": ("slot_prompt_similarity", float),
    "temp": ("sampling.temp", float),
    "threads": ("cpuparams.n_threads", int),
    "threads-batch": ("cpuparams_batch.n_threads", int),
    "threads-http": ("n_threads_http", int),
    "top-k": ("sampling.top_k", int),
    "top-p": ("sampling.top_p", float),
    "ubatch-size": ("n_ubatch", int),
    "verbosity": ("verbosity", int),
}
# Flags without a value: --NAME and --no-NAME.
FLAGS: dict[str, str] = {
    "cache-prompt": "cache_prompt",
    "check-tensors": "check_tensors",
    "cont-batching": "cont_batching",
    "context-shift": "ctx_shift",
    "embedding": "embedding",
    "embeddings": "embedding",
    "jinja": "use_jinja",
    "kv-unified": "kv_unified",
    "metrics": "endpoint_metrics",
    "prefill-assistant": "prefill_assistant",
    "props": "endpoint_props",
    "slots": "endpoint_slots",
    "swa-full": "swa_full",
    "ui": "ui",
    "warmup": "warmup",
    "webui": "ui",
}
SHORT = {
    "a": "alias", "b": "batch-size", "c": "ctx-size", "cb": "cont-batching", "cram": "cache-ram",
    "fa": "flash-attn", "kvu": "kv-unified", "m": "model", "mg": "main-gpu", "n": "n-predict",
    "ngl": "gpu-layers", "np": "parallel", "s": "seed", "sps": "slot-prompt-similarity",
    "t": "threads", "tb": "threads-batch", "ub": "ubatch-size", "lv": "verbosity",
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"embedded: {message}", file=sys.stderr)
        raise SystemExit(USAGE)


def parser() -> argparse.ArgumentParser:
    """The command line: llama-server's names, no abbreviations."""
    short: dict[str, list[str]] = {}
    for letters, name in SHORT.items():
        short.setdefault(name, []).append(f"-{letters}")
    made = _Parser(prog="inferfleet.engines.embedded", allow_abbrev=False)

    def add(name: str, **how: Any) -> None:
        made.add_argument(f"--{name}", *short.get(name, ()), **how)

    add("model", required=True, help="path of a GGUF file")
    add("host", default="127.0.0.1", help="address to listen on")
    add("port", type=int, required=True)
    add("alias", help="the name that clients ask for")
    add("api-key-file", help="a file with one key a line; $LLAMA_API_KEY is a key as well")
    add("chat-template-file")
    add("flash-attn", type=_flash)
    add("die-with-parent", action="store_true", help="leave when the starting process ends")
    for name, (_, read) in VALUES.items():
        add(name, type=read)
    for name in FLAGS:
        add(name, action=argparse.BooleanOptionalAction)
    return made


def params(arguments: argparse.Namespace, library: Any) -> Any:
    """The library's CommonParams for parsed arguments. Raises OSError for unreadable files."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    made = library.CommonParams()
    made.model.path = arguments.model
    made.hostnames = [arguments.host]
    made.port = arguments.port
    if arguments.alias is not None:
        made.model_alias = {arguments.alias}
    keys = [os.environ["LLAMA_API_KEY"]] if os.environ.get("LLAMA_API_KEY") else []
    if arguments.api_key_file is not None:
        keys += Path(arguments.api_key_file).read_text("utf-8").split("\n")
    made.api_keys = [key for key in keys if key]
    if arguments.chat_template_file is not None:
        made.chat_template = Path(arguments.chat_template_file).read_text("utf-8")
    if arguments.flash_attn is not None:
        name = f"LLAMA_FLASH_ATTN_TYPE_{arguments.flash_attn}"
        made.flash_attn_type = getattr(library.llama_flash_attn_type, name)
    for option, (path, _) in VALUES.items():
        if (value := given.get(option.replace("-", "_"))) is not None:
            _set(made, path, value)
    for option, path in FLAGS.items():
        if (value := given.get(option.replace("-", "_"))) is not None:
            _set(made, path, value)
    return made


def _set(target: Any, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        target = getattr(target, name)
    setattr(target, last, value)


def _die_with_parent() -> None:
    """Linux: when the supervisor is killed, the kernel kills this process."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it died before the kernel knew
        raise SystemExit(1)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # The library's threads would hold up Python's own way out.
    os._exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    arguments = parser().parse_args(argv)
    if arguments.die_with_parent:
        _die_with_parent()
    # This file is run by its path, from any folder, with inferbase installed or not.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from inferfleet.engines import openmp

    openmp.provide()
    try:
        import xllamacpp
    except ImportError as error:
        print(
            f"embedded: xllamacpp is not usable here ({error}); install it "
            "(pip install -e '.[local]'), or give the service a program:",
            file=sys.stderr,
        )
        return USAGE
    if not os.path.isfile(arguments.model):
        print(f"embedded: there is no model file {arguments.model}", file=sys.stderr)
        return USAGE

    # Until the model is loaded a signal ends the process at once, as it should.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(params(arguments, xllamacpp))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        print(f"embedded: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    print(f"embedded: listening on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
