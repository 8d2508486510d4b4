"""docs/how-to/adopt.md: what a machine has already, as rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
import render_cases
import yaml

from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots
from inferfleet.render.render import draft

SNAPSHOT = "hub/models--Qwen--Qwen3-32B-FP8/snapshots/0123abcd"


def compose(roots: Roots, name: str) -> dict[str, dict[str, object]]:
    files = draft(load_fleet(roots), name).release.files
    found: dict[str, dict[str, object]] = yaml.safe_load(files["compose.yaml"].content)["services"]
    return found


def test_the_spark_keeps_the_stores_of_its_owner() -> None:
    services = compose(Roots(render_cases.REPOSITORY), "spark")
    mounts = {
        (mount["source"], mount["target"], mount["read_only"])
        for service in services.values()
        for mount in service["volumes"]  # type: ignore[attr-defined]
        if mount["source"].startswith("/opt")
    }
    assert mounts == {("/opt/ollama", "/data", False), ("/opt/hf", "/models", True)}


@pytest.mark.parametrize(
    ("models", "volumes", "inside"),
    [
        ("/opt/hf", "[]", "/models"),
        ("/srv/models", "[{source: /opt/hf, target: /cache}]", "/cache"),
    ],
)
def test_a_snapshot_of_the_hubs_cache_as_a_path(
    models: str, volumes: str, inside: str, tmp_path: Path
) -> None:
    """Its links lead to ../../blobs, so more than the snapshot must be mounted."""
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory/box.yaml").write_text(
        f"address: box\nmodels: {models}\n"
        f"services:\n  s: {{kind: vllm, model: /opt/hf/{SNAPSHOT}, volumes: {volumes}}}\n"
    )
    service = compose(Roots(render_cases.REPOSITORY, tmp_path), "box")["s"]
    mounts = {m["source"]: m["target"] for m in service["volumes"]}  # type: ignore[attr-defined]
    assert mounts["/opt/hf"] == inside
    assert f"{inside}/{SNAPSHOT}" in service["command"]  # type: ignore[operator]
