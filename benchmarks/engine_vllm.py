"""The pair of the engine benchmark that is vLLM: a rendered unit, and its command by hand.

Both run in one machine of the tests, which has a systemd of its own; the model is tiny and random,
so that what is around the model weighs as much as it can.
"""

from __future__ import annotations

import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import BenchmarkError

MODEL = "tiny"
_PORT = 5006
_WAIT_SECONDS = 900.0
_OPTIONS = {"max-model-len": 1024, "max-num-seqs": 8, "dtype": "float32", "enforce-eager": True}


@contextmanager
def unit(folder: Path) -> Iterator[tuple[str, str]]:
    """The URLs of ours and of the one by hand. The modules of the tests must be importable."""
    from engines.test_vllm import UNIT, Place
    from testbed import vllm
    from testbed.session import Testbed, unavailable

    if reason := unavailable():
        raise BenchmarkError(reason)
    environment = vllm.build()
    (folder / "place").mkdir()
    (folder / "bed").mkdir()
    bed = Testbed(folder / "bed", binds=vllm.binds(environment))
    try:
        machine = bed.machine()
        vllm.install_libraries(machine)
        place = Place(machine, folder / "place", environment)
        place.write(secrets=None, bind=machine.address, options=_OPTIONS)
        up = place.invoke("up")
        if up.rc:
            raise BenchmarkError(repr(up))
        pid = machine.check(f"systemctl show -p MainPID --value {UNIT}").strip()
        words = machine.check(f"tr '\\0' '\\n' </proc/{pid}/cmdline").splitlines()
        words[words.index("--port") + 1] = str(_PORT)
        # What the unit sets for its caches is of its own user; the rest is the same.
        kept = ("VLLM_", "HF_HUB", "DO_NOT")
        variables = machine.check(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines()
        variables = [v for v in variables if v.startswith(kept) and "CACHE_ROOT" not in v]
        line = shlex.join(["env", "HOME=/tmp", *variables, *words])
        machine.check(f"setsid {line} >/tmp/hand.log 2>&1 </dev/null &")
        hand = f"http://{machine.address}:{_PORT}"
        _await(hand, lambda: machine.check("tail -n 30 /tmp/hand.log"))
        yield f"http://{machine.address}:5005", hand
    finally:
        bed.close()


def _await(url: str, said: Callable[[], str]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"vLLM started by hand: {said()}") from None
            time.sleep(0.5)
