"""A machine with one running service, for each test its own; nothing of it may outlive the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.fleet import FleetBox


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[FleetBox]:
    """Nothing applied yet."""
    box = FleetBox(tmp_path)
    yield box
    box.end()
    assert box.processes() == []


@pytest.fixture
def box(empty: FleetBox) -> FleetBox:
    """Generation 1 applied: it says "one"."""
    outcome = empty.up()
    assert outcome.ok, outcome
    return empty
