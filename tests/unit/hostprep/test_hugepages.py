from __future__ import annotations

import pytest
from hostprep_machine import Machine, apply, ground, see, there_and_back, verdicts

from inferfleet.hostprep.kinds.memory import hugepages
from inferfleet.hostprep.kinds.memory.hugepages import HugePages

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NODES = [f"/sys/devices/system/node/node{n}/hugepages/hugepages-2048kB/nr_hugepages"
         for n in (0, 1)]  # fmt: skip
LINE = f"w {POOL} - - - - {{}}\n"


class Memory(Machine):
    """Gives no more than `most` pages, spread evenly over its nodes."""

    most = 10**9

    def write(self, path: str, value: str) -> None:
        nodes = [node for node in NODES if node in self.files]
        if path == POOL:
            total = min(int(value), self.most)
            for place, node in enumerate(nodes):
                share, rest = divmod(total, len(nodes))
                self.files[node] = f"{share + (place < rest)}\n"
            self.files[POOL] = f"{total}\n"
        else:
            self.files[path] = f"{value}\n"
            self.files[POOL] = f"{sum(int(self.files[node]) for node in nodes)}\n"


def memory(*nodes: int, free: int = 64 << 20) -> Memory:
    files = {POOL: f"{sum(nodes)}\n", "/proc/meminfo": f"MemFree: 7 kB\nMemAvailable: {free} kB\n"}
    return Memory(files | {path: f"{n}\n" for path, n in zip(NODES, nodes, strict=False)})


def wanted(**sizes: int):  # type: ignore[no-untyped-def]
    return ground(hugepages={name[1:]: count for name, count in sizes.items()})


@pytest.mark.parametrize("before", [(0,), (100,), (700,), (3, 60)])
def test_the_pool_is_filled_and_given_back(before: tuple[int, ...]) -> None:
    trip = there_and_back(memory(*before), HugePages(), wanted(_2M=512))
    assert trip.verdicts() == {"hugepages.2M": "ok"}
    assert (trip.before.files[0].content or "").endswith(LINE.format(512))


def test_each_node_gets_back_what_it_had() -> None:
    machine = memory(3, 60)
    trip = there_and_back(machine, HugePages(), wanted(_2M=512))
    assert trip.before.findings[0].live == "63 (node0 3, node1 60)"
    assert [machine.files[node] for node in NODES] == ["3\n", "60\n"]


def test_a_full_pool_is_left_alone() -> None:
    machine = memory(512)
    machine.files[hugepages.OURS] = hugepages.HEAD + LINE.format(512)
    prepared = see(machine, HugePages(), wanted(_2M=512))
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


def test_pages_that_could_not_be_had_are_counted() -> None:
    machine = memory(0)
    machine.most = 100
    with pytest.raises(AssertionError, match="second run"):
        apply(machine, HugePages(), wanted(_2M=512))
    finding = see(machine, HugePages(), wanted(_2M=512)).findings[0]
    assert finding.verdict == "differs"
    assert "412 of 512 pages could not be had" in finding.remedy


def test_more_than_the_memory_has_is_not_tried() -> None:
    machine = memory(100, free=412 * 2048 - 1)
    prepared = see(machine, HugePages(), wanted(_2M=512))
    assert prepared.findings[0].verdict == "advice"
    assert prepared.findings[0].remedy == (
        "412 more pages are 824 MiB, and 823 MiB are free: want at most 511, or end what uses "
        "the memory"
    )
    assert prepared.changes == ()
    assert verdicts(memory(100, free=412 * 2048), HugePages(), wanted(_2M=512)) == {
        "hugepages.2M": "differs"
    }


def test_what_is_kept_stays_while_the_memory_is_short() -> None:
    machine = memory(100, free=0)
    machine.files[hugepages.OURS] = hugepages.HEAD + LINE.format(512)
    assert see(machine, HugePages(), wanted(_2M=512)).changes == ()


def test_no_pages_need_no_memory() -> None:
    there_and_back(memory(512, free=0), HugePages(), wanted(_2M=0))


def test_a_size_that_the_kernel_lacks_is_unsupported() -> None:
    prepared = see(memory(0), HugePages(), wanted(_1G=4))
    assert [finding.verdict for finding in prepared.findings] == ["unsupported"]
    assert prepared.changes == ()


def test_a_closed_pool_cannot_be_told() -> None:
    machine = memory(0)
    machine.closed.add(POOL)
    assert verdicts(machine, HugePages(), wanted(_2M=4)) == {"hugepages.2M": "unknown"}


def test_a_file_of_an_earlier_run_goes_when_nothing_is_wanted() -> None:
    machine = memory(0)
    machine.files[hugepages.OURS] = hugepages.HEAD + LINE.format(512)
    there_and_back(machine, HugePages(), ground())


def test_pages_of_pinned_models_come_on_top() -> None:
    machine = memory(612)
    machine.files[hugepages.OURS] = hugepages.HEAD + LINE.format(512)
    machine.files[hugepages.BOOT] = "b1\n"
    machine.files["/var/lib/inferbase/pages/box-one"] = "/m.gguf\t209715200\t1\t100\tb1\n"
    machine.files["/var/lib/inferbase/pages/box-two"] = "/n.gguf\t209715200\t1\t100\tb0\n"
    prepared = see(machine, HugePages(), wanted(_2M=512))
    assert [(f.verdict, f.live) for f in prepared.findings] == [
        ("ok", "612 (100 of pinned models)")
    ]
    assert not prepared.changes
    machine.files[POOL] = "512\n"
    prepared = see(machine, HugePages(), wanted(_2M=512))
    assert [change.text for change in prepared.changes] == ["512 -> 612"]
