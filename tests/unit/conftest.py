"""The gateway that several test files share, one for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gateway_box import Bed


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    from gateway_box import Bed

    with ExitStack() as stack:
        yield Bed(tmp_path_factory.mktemp("gateway"), stack)


@pytest.fixture
def bed(shared_gateway: Bed) -> Bed:
    shared_gateway.calm()
    return shared_gateway
