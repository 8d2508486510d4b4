"""docs/how-to/adopt.md: an Ollama that served by hand before, with its store, under our care."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.fleet import Fleet
from ports import free_port

BASE = "qwen3:32b-q8_0"


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def old(tmp_path: Path, ollama_tag: str) -> Iterator[tuple[str, Path, int]]:
    """A container of nobody's that has pulled a model into a directory; name, directory, port."""
    name, store, port = f"adopt-old-{os.getpid()}", tmp_path / "ollama", free_port()
    store.mkdir()
    docker(
        "run", "-d", "--name", name, "-v", f"{store}:/root/.ollama", "-e", "HOME=/root",
        "-e", "OLLAMA_MODELS=/root/.ollama/models", "-p", f"127.0.0.1:{port}:11434",
        ollama_tag, "serve",
    )  # fmt: skip
    body = json.dumps({"model": BASE, "stream": False}).encode()
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/pull", body, timeout=30).close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    yield name, store, port
    docker("rm", "-f", name)


@pytest.mark.e2e
def test_its_store_is_used_where_it_is(
    tmp_path: Path, ollama_tag: str, old: tuple[str, Path, int]
) -> None:
    name, store, port = old
    blobs = sorted(path.name for path in (store / "models/blobs").iterdir())
    assert blobs
    fleet, root = Fleet(tmp_path, tmp_path), tmp_path / f"adopt{os.getpid()}"
    service = {
        "kind": "ollama", "image": ollama_tag, "model": f"ollama:{BASE}", "port": port,
        "memory": "256M",
        "volumes": [{"source": str(store), "target": "/data", "read-only": False}],
    }  # fmt: skip
    fleet.machine("box", root=str(root), runtime="compose", services={"ollama": service})
    container = f"{root.name}-ollama"
    try:
        taken = fleet.invoke("up", "--host", "box")
        assert taken.rc == 1, taken
        assert f"is already taken on 127.0.0.1 by container {name}" in taken.err
        docker("rm", "-f", name)
        up = fleet.invoke("up", "--host", "box")
        assert up.rc == 0, up
        assert "/api/pull" not in docker("logs", container)
        assert sorted(path.name for path in (store / "models/blobs").iterdir()) == blobs
        assert fleet.invoke("health", "--host", "box").rc == 0
        assert fleet.invoke("stop", "--host", "box").rc == 0
        assert (store / "models/blobs" / blobs[0]).exists()
    finally:
        docker("rm", "-f", container)
        docker("network", "rm", f"{root.name}_default")
