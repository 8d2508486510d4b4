"""Names from the command line."""

from __future__ import annotations

import pytest

from inferfleet.errors import FleetErrors
from inferfleet.run.select import Listed, select_machines, select_services


def machine(*groups: str) -> Listed:
    return Listed(groups, ("chat", "embed", "page"))


FLEET = {
    "local": machine(),
    "spark-2": machine("spark", "gpu"),
    "spark-1": machine("spark"),
    "rtx": machine("gpu"),
}


@pytest.mark.parametrize(
    ("hosts", "groups", "chosen"),
    [
        ([], [], ["local"]),
        (["rtx"], [], ["rtx"]),
        (["spark-2", "rtx", "spark-2"], [], ["spark-2", "rtx"]),
        ([], ["spark"], ["spark-1", "spark-2"]),
        (["spark-2"], ["gpu", "spark"], ["spark-2", "rtx", "spark-1"]),
        (["all"], [], ["local", "rtx", "spark-1", "spark-2"]),
        (["spark-2", "all"], ["gpu"], ["spark-2", "local", "rtx", "spark-1"]),
    ],
)
def test_machines(hosts: list[str], groups: list[str], chosen: list[str]) -> None:
    assert select_machines(FLEET, hosts, groups) == chosen


@pytest.mark.parametrize(
    ("hosts", "groups", "error"),
    [
        (
            ["spark1"],
            [],
            (
                "there is no machine spark1\n"
                "hint: did you mean spark-1? machines: local, rtx, spark-1, spark-2"
            ),
        ),
        (["xyz"], [], "there is no machine xyz\nhint: machines: local, rtx, spark-1, spark-2"),
        ([], ["sparks"], "there is no group sparks\nhint: did you mean spark? groups: gpu, spark"),
    ],
)
def test_unknown_machines(hosts: list[str], groups: list[str], error: str) -> None:
    with pytest.raises(FleetErrors) as caught:
        select_machines(FLEET, hosts, groups)
    assert str(caught.value) == error
    assert caught.value.code == 64


def test_all_unknown_names_are_reported_once_each() -> None:
    with pytest.raises(FleetErrors) as caught:
        select_machines(FLEET, ["a", "b", "a"], [])
    assert [error.what for error in caught.value.errors] == [
        "there is no machine a",
        "there is no machine b",
    ]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], ["chat", "embed", "page"]),
        (["page", "chat"], ["chat", "page"]),
        (["page", "page"], ["page"]),
    ],
)
def test_services(names: list[str], chosen: list[str]) -> None:
    assert select_services(machine(), names) == chosen


def test_unknown_service() -> None:
    with pytest.raises(FleetErrors) as caught:
        select_services(machine(), ["embd"])
    assert str(caught.value) == (
        "there is no service embd\nhint: did you mean embed? services: chat, embed, page"
    )
    assert caught.value.code == 64
