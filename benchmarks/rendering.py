"""10, 100 and 1,000 machines of five services each: loaded, validated and rendered.

`python -m benchmarks.rendering FOLDER` does it once for the inventory in FOLDER.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import in_turns, median_seconds, run, surroundings

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = (10, 100, 1000)
MIB = 1 << 20


def write_inventory(folder: Path, count: int) -> None:
    """An overlay of count machines, each with five services."""
    inventory = folder / "inventory"
    inventory.mkdir(parents=True)
    for number in range(count):
        (inventory / f"m{number:04}.yaml").write_text(json.dumps(_machine(number), indent=2))


def _machine(number: int) -> dict[str, Any]:
    small = "/srv/models/smollm2.gguf"
    return {
        "address": f"m{number:04}.example",
        "hardware": "h100-nvl",
        "groups": [f"rack{number % 20}"],
        "runtime": "compose",
        "secrets": {"WEBUI_SECRET_KEY": {"env": "WEBUI_SECRET_KEY"}},
        "services": {
            "vllm": {
                "kind": "vllm",
                "model": "hf:Qwen/Qwen3-8B",
                "port": 8000,
                "memory": "32G",
                "options": {"max-model-len": 16384, "enable-prefix-caching": True},
            },
            "llama": {
                "kind": "llama-cpp",
                "model": small,
                "port": 8001,
                "cpuset": "0-3",
                "options": {"ctx-size": 4096, "threads": 4},
            },
            "native": {
                "kind": "llama-cpp",
                "runtime": "systemd",
                "model": small,
                "port": 8002,
                "gpus": "none",
            },
            "ollama": {
                "kind": "ollama",
                "model": "ollama:qwen3:8b",
                "port": 11434,
                "served-name": "brief",
                "modelfile": {"parameters": {"num_ctx": 8192}, "system": "Be brief."},
            },
            "page": {"kind": "open-webui", "port": 3000},
        },
    }


def render_all(folder: Path) -> int:
    """Load, validate and render every machine of the inventory; the number of files."""
    from inferfleet.load.load import load_fleet
    from inferfleet.paths import Roots
    from inferfleet.render.render import render
    from inferfleet.secrets import Secret

    fleet = load_fleet(Roots(REPOSITORY, folder))
    files = 0
    for name, machine in fleet.machines.items():
        secrets = {secret: Secret("benchmark") for secret in machine.secrets}
        files += len(render(fleet, name, secrets).files)
    return files


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of rendering; seconds of a whole process, its start included."""
    with tempfile.TemporaryDirectory(prefix="rendering-") as folder:
        actions = {}
        for size in SIZES:
            inventory = Path(folder) / str(size)
            write_inventory(inventory, size)
            command = [sys.executable, "-m", "benchmarks.rendering", str(inventory)]
            actions[str(size)] = partial(run, command, env=surroundings(), cwd=REPOSITORY)
        samples = in_turns(actions, rounds)
    seconds = {size: median_seconds(samples[str(size)]) for size in SIZES}
    # The time of the start is in all three: differences tell what a machine costs.
    early = (seconds[100] - seconds[10]) / 90
    late = (seconds[1000] - seconds[100]) / 900
    figures = [
        Figure("1,000 machines x 5 services", seconds[1000], "s", 5.0),
        Figure("a machine among 1,000 to one among 100", late / early, "times", 1.25),
    ]
    figures += [Figure(f"{size} machines", seconds[size], "s") for size in SIZES[:2]]
    figures += [
        Figure(f"peak memory at {size} machines", max(s.peak for s in samples[str(size)]) / MIB,
               "MiB")
        for size in SIZES
    ]  # fmt: skip
    details = {name: [round(s.seconds, 3) for s in taken] for name, taken in samples.items()}
    return figures, details


if __name__ == "__main__":
    from inferfleet.tasks.edge import collect_less

    collect_less()  # as every task does
    print(render_all(Path(sys.argv[1])))
