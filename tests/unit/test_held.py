"""Who holds memory: the answer of memory.sh, made by hand and by this machine's shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpu_cases import CASES as GPU_CASES
from plan_cases import make_unit
from stub_nvidia_smi import install

from inferfleet.capacity.admission.asking import held_script, parse_held
from inferfleet.capacity.held import Container, ModelFile
from inferfleet.capacity.machine import live_memory, shares
from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost

KIB = 1024
ID = "a" * 64
OTHER = "b" * 64
OUTER = "c" * 64

PROCESSES = f"""\
/proc/meminfo:MemTotal:       1000 kB
/proc/meminfo:MemAvailable:    400 kB
/proc/1/status:Name:\tsystemd
/proc/1/status:RssAnon:\t      10 kB
/proc/1/status:RssShmem:\t       0 kB
/proc/2/status:Name:\tkthreadd
/proc/20/status:Name:\tpython: loop
/proc/20/status:RssAnon:\t     100 kB
/proc/20/status:RssShmem:\t      30 kB
/proc/21/status:Name:\tpython
/proc/21/status:RssAnon:\t      50 kB
/proc/21/status:RssShmem:\t      40 kB
/proc/30/status:Name:\tpostgres
/proc/30/status:RssAnon:\t      70 kB
/proc/40/status:Name:\tllama-server
/proc/40/status:RssAnon:\t      60 kB
/proc/50/status:Name:\tvllm
/proc/50/status:RssAnon:\t      80 kB
/proc/60/status:Name:\tcron
/proc/60/status:RssAnon:\t       5 kB
/proc/1/cgroup:0::/init.scope
/proc/20/cgroup:0::/system.slice/docker-{ID}.scope
/proc/21/cgroup:5:memory:/docker/{OUTER}/docker/{ID}
/proc/30/cgroup:0::/docker/{OTHER}
/proc/40/cgroup:0::/user.slice/user-1000.slice/user@1000.service/app.slice
/proc/50/cgroup:0::/system.slice/box-native.service
/proc/60/cgroup:0::/system.slice/cron.service
child\tproc\t39
39 (sh) S 1 39 39 0 -1
40 (llama server) S 39 39 39 0 -1
container\t{ID}\tbox-a\trunning\tbox\ta\tllama:1\tbox_a-home
container\t{OTHER}\tdb\trunning\t\t\tpostgres:18\t/srv,data
container\t{"d" * 64}\told\texited\tshop\tweb\tx:1\t
cpus\t{OTHER}\t0-3
model\tkey\t17\t1700000000\t/m/config.json
"""
UNITS = {
    "a": make_unit("a", {}),
    "native": make_unit("native", {"runtime": "systemd", "name": "box-native"}),
    "proc": make_unit("proc", {"runtime": "process", "name": "proc"}),
}


def test_owners() -> None:
    held = parse_held(f"{PROCESSES}end\n", "box", UNITS)
    assert (held.total, held.available) == (1000 * KIB, 400 * KIB)
    # Shared pages count once, as the process with most of them has them.
    assert held.of("a").host == 190 * KIB
    assert held.of("native").host == 80 * KIB
    assert held.of("proc").host == 60 * KIB
    assert held.of("nobody").host == 0
    assert [(one.label, one.host // KIB) for one in held.foreign] == [
        ("container db (postgres:18)", 70),
        ("process 1 (systemd)", 10),
        ("cron.service", 5),
    ]
    assert held.containers[1] == Container(
        "db", "postgres:18", True, "", "", ("/srv", "data"), "0-3"
    )
    assert not held.containers[2].running
    assert held.files == {"key": (ModelFile("/m/config.json", 17, 1700000000),)}


@pytest.mark.parametrize(
    ("folder", "lines", "total", "available"),
    [
        ("", ["memory.max:512000", "memory.current:300000", "memory.stat:inactive_file 200000"],
         512000, 400 * KIB),
        ("", ["memory.max:512000", "memory.current:500000", "memory.stat:inactive_file 1000"],
         512000, 13000),
        ("", ["memory.max:max", "memory.current:500000"], 1000 * KIB, 400 * KIB),
        ("/memory", ["memory.limit_in_bytes:512000", "memory.usage_in_bytes:500000",
                     "memory.stat:total_inactive_file 0"], 512000, 12000),
        ("/memory", ["memory.limit_in_bytes:9223372036854771712"], 1000 * KIB, 400 * KIB),
    ],
)  # fmt: skip
def test_a_machine_that_is_a_container(
    folder: str, lines: list[str], total: int, available: int
) -> None:
    more = "".join(f"/sys/fs/cgroup{folder}/{line}\n" for line in lines)
    held = parse_held(f"{PROCESSES}{more}end\n", "box", UNITS)
    assert (held.total, held.available) == (total, available)


def test_gpus() -> None:
    report = (GPU_CASES / "rtx-5090.xml").read_text()
    pid = report.split("<pid>")[1].partition("<")[0]
    driver = f"smi\t0\n{report}\n\x01\nmemory\tMemTotal:\t1000\nend\n"
    own = f"{PROCESSES}/proc/{pid}/cgroup:0::/docker/{ID}\nend\n"
    held = parse_held(f"{own}\x02\n{driver}", "box", UNITS)
    card = held.cards[0]
    assert card.total == 32607 << 20
    assert card.free is not None
    assert 0 < card.free < card.total
    assert "a" in card.users
    assert held.of("a").gpus[0] > 0
    failed = parse_held(f"{own}\x02\nsmi\t9\nNVIDIA-SMI has failed\n\x01\nend\n", "box", UNITS)
    assert failed.cards == ()
    assert failed.note


@pytest.mark.parametrize(
    ("case", "total", "unified"),
    [("h100-nvl", 95830, False), ("tesla-t4", 15360, False), ("gb10", None, True)],
)
def test_a_driver_through_the_shell(
    case: str, total: int | None, unified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded reports of real cards; GB10 tells no total: its memory is the machine's."""
    install(tmp_path, case)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = held_script(str(tmp_path), "box", {}, gpus=True, pinned=False)
    held = parse_held(LocalHost("here").run(script).out, "box", {})
    assert [card.total and card.total >> 20 for card in held.cards] == [total]
    assert shares({}, held) is unified
    memory = live_memory({"reserve": 5}, "all", held)
    assert (memory.unified, memory.gpus) == (unified, 1)
    assert memory.device == (held.total if unified else (total or 0) << 20)


def test_cut_short() -> None:
    with pytest.raises(FleetError, match="cut short"):
        parse_held(PROCESSES, "box", UNITS)


def test_on_this_machine(tmp_path: Path) -> None:
    """The script itself: this test's own process is found, and the files of models."""
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text("{ }")
    (folder / "model.safetensors").write_bytes(b"12345678")
    (folder / "notes.txt").write_text("no")
    for part in (1, 2):
        (tmp_path / f"big-0000{part}-of-00002.gguf").write_bytes(b"x" * part)
    models = {
        "one": str(folder),
        "two": str(tmp_path / "big-00001-of-00002.gguf"),
        "three": "/nowhere/x.gguf",
    }
    script = held_script(str(tmp_path), "box", models, gpus=False, pinned=True)
    held = parse_held(LocalHost("here").run(script).out, "box", {})
    assert 0 < held.available <= held.total
    assert any("python" in one.label or "pytest" in one.label for one in held.foreign)
    assert {key: [(f.path.rpartition("/")[2], f.size) for f in files]
            for key, files in held.files.items()} == {
        "one": [("config.json", 2), ("model.safetensors.index.json", 3), ("model.safetensors", 8)],
        "two": [("big-00001-of-00002.gguf", 1), ("big-00002-of-00002.gguf", 2)],
    }  # fmt: skip
