"""Fixtures of the end-to-end tests: real machines, see tests/testbed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed import kernel_bed as kernel
from testbed import model
from testbed.kernel_bed import KernelBed
from testbed.machine import TestMachine
from testbed.session import Testbed, unavailable
from testbed.shell import alone
from testbed.vm import KernelMachine

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and no others."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def _need(reason: str | None) -> None:
    """Skip for a reason why there can be no machines; in CI that is a failure."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """The session's machines and ssh client files; skipped without Docker, but not in CI."""
    _need(unavailable())
    bed = Testbed(tmp_path_factory.mktemp("testbed"))
    yield bed
    bed.close()


@pytest.fixture
def machines(testbed: Testbed) -> Iterator[Callable[..., list[TestMachine]]]:
    """A function that makes n fresh machines at once, removed after the test.

    Keyword arguments go to Testbed.machine, for example tmpfs={"/opt/inference": 8}.
    """
    made: list[TestMachine] = []

    def make(count: int, *, tmpfs: dict[str, int] | None = None) -> list[TestMachine]:
        new = testbed.make(count, tmpfs=tmpfs)
        made.extend(new)
        return new

    yield make
    for machine in made:
        testbed.destroy(machine)


@pytest.fixture
def machine(machines: Callable[..., list[TestMachine]]) -> TestMachine:
    """One fresh machine: Debian, systemd, sshd, Docker with the llama.cpp image, no Python."""
    return machines(1)[0]


@pytest.fixture(scope="module")
def shared_machine(testbed: Testbed) -> Iterator[TestMachine]:
    """One machine for all tests of a module that leave it as they found it."""
    made = testbed.machine()
    yield made
    testbed.destroy(made)


@pytest.fixture(scope="session")
def gguf(testbed: Testbed) -> Path:
    """The real model's file on this machine; machines see it as testbed.machine.MODEL."""
    return model.gguf()


@pytest.fixture(scope="session")
def kernel_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelBed]:
    """The session's virtual machines; skipped without QEMU, but not in CI."""
    _need(kernel.unavailable())
    bed = KernelBed(tmp_path_factory.mktemp("kernel"))
    yield bed
    bed.close()


@pytest.fixture
def kernel_machine(kernel_bed: KernelBed) -> Iterator[KernelMachine]:
    """One fresh virtual machine: Debian with its own kernel, GRUB, systemd, sshd; no Docker.

    Emulated, it takes every processor there is: the workers of a session have it in turn.
    """
    with alone("kernel-machine"):
        made = kernel_bed.machine()
        yield made
        kernel_bed.destroy(made)
