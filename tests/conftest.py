"""How the tests are shared out among the workers of `pytest -n auto`: file by file.

So a file's expensive fixtures (a machine, a running service, a download) are made once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

# What takes longest begins first, or the last of it would run alone at the end.
_LONG = (
    "e2e/test_faults.py",
    "e2e/test_hostprep_boot.py",
    "e2e/test_hostprep.py",
    "docs/test_commands.py",
    "faults/test_faults_killed.py",
    "/e2e/",
)


# A shell starts a command in the background with SIGINT ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one worker more than processors, because many tests wait; 4 at most."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """In a worker, put the longest files first; the order is otherwise left as it is."""
    yield
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    path = item.path.as_posix()
    return next((i for i, name in enumerate(_LONG) if name in path), len(_LONG))
