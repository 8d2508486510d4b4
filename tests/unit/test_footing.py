"""The ground under services that start: what refuses, what is noted, what is asked for at all."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_files import load_files
from plan_cases import ROOT, applied, make_release

from inferfleet.hostprep.setting import Ground, Wanted
from inferfleet.hosts.local import LocalHost
from inferfleet.observe.observed import parse_observed
from inferfleet.operations.status import status_rows
from inferfleet.plan.details import Details, acting_services, details_script, parse_details
from inferfleet.plan.footing import Footing, Missing, footing_problems, parse_missing
from inferfleet.plan.plan import Goal, Plan, make_plan
from inferfleet.release.release import Release
from inferfleet.render.render import render
from inferfleet.run.brief import make_brief
from inferfleet.run.session import Session
from inferfleet.schema.fleet import Fleet

NVIDIA = Path("/dev/nvidiactl").exists()


def release(**units: dict[str, Any]) -> Release:
    return make_release({"units": units or {"a": {"gpu": True}}})


def fresh_plan(one: Release) -> Plan:
    return make_plan(one, parse_observed("end\n", ROOT), Goal())


def said(
    one: Release, missing: Missing, footings: dict[str, Footing] | None = None
) -> tuple[list[str], list[str]]:
    """The problems and the notes of starting everything."""
    problems, notes = footing_problems(one, footings or {}, one.units, missing)
    assert all(problem.hint for problem in problems)
    return [problem.what for problem in problems], notes


GPU = {"gpu": True}
PLAIN: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("unit", "missing", "problem"),
    [
        (GPU, Missing(gpu="this machine has no NVIDIA device"),
         "a needs a GPU, and this machine has no NVIDIA device"),
        (GPU, Missing(toolkit=False),
         "a needs a GPU, and Docker has neither the nvidia runtime nor CDI"),
        # The driver comes first: without it the toolkit is no use.
        (GPU, Missing(gpu="x", toolkit=False), "a needs a GPU, and x"),
        (GPU | {"runtime": "systemd", "links": {}}, Missing(toolkit=False), None),
        (GPU, Missing(), None),
        (PLAIN, Missing(gpu="x", toolkit=False), None),
    ],
)  # fmt: skip
def test_gpu(unit: dict[str, Any], missing: Missing, problem: str | None) -> None:
    unit = {key: value for key, value in unit.items() if key != "links"}
    assert said(release(a=unit), missing) == ([problem] if problem else [], [])


@pytest.mark.parametrize(
    ("devices", "refused"),
    [
        ({"/": "1", "/mnt/models": "1"}, True),
        ({"/": "1"}, True),
        ({"/": "1", "/mnt/models": "2"}, False),
        ({}, False),  # nobody could ask
    ],
)
def test_a_disk_that_is_not_mounted(devices: dict[str, str], refused: bool) -> None:
    one = release(a={}, b={}, c={})
    footings = dict.fromkeys(("a", "b"), Footing(mounts=("/mnt/models",)))
    problems, _ = said(one, Missing(devices=devices), footings)
    what = "/mnt/models is not mounted, and a, b would lie on the root disk"
    assert problems == ([what] if refused else [])


@pytest.mark.parametrize(("limit", "noted"), [(8 << 20, True), (None, False)])
def test_locked_memory(limit: int | None, noted: bool) -> None:
    problems, notes = said(release(), Missing(lock_limit=limit), {"a": Footing(locks=True)})
    assert problems == []
    assert ["8192 KiB" in note for note in notes] == ([True] if noted else [])
    assert said(release(), Missing(lock_limit=limit)) == ([], [])


def test_pages_that_a_start_took_are_noted() -> None:
    _, notes = said(release(a={}, b={}), Missing(gone=frozenset("b")))
    assert len(notes) == 1
    assert "invoke models.pin --service b" in notes[0]


def test_records() -> None:
    text = (
        "ground\tgpu\tno driver\nground\ttoolkit\tmissing\nground\tlock\t8388608\n"
        "ground\tdevice\t1 /\nground\tdevice\t7 /mnt/my disk\nground\tgone\tb\nground\todd\n"
    )
    missing = Missing("no driver", False, 8 << 20, {"/": "1", "/mnt/my disk": "7"}, frozenset("b"))
    assert parse_details(text).missing == missing
    assert parse_missing([("lock", "unlimited")]) == Missing()
    assert Details({}, {}, {}).missing == Missing()


def test_asked_only_for_what_starts() -> None:
    one = release(a={"gpu": True, "runtime": "systemd"}, b={})
    footings = {"b": Footing(True, ("/mnt/models",))}
    fresh = parse_observed("end\n", ROOT)
    script = details_script(one, fresh, fresh_plan(one), footings)
    for line in ("gpus=systemd", "locks=yes", "mounts=/mnt/models", "pins='a\tbox-a"):
        assert f"\n{line}\n" in f"\n{script}".replace("\nb\t", "\n_\t") or line in script
    # Nothing starts: nothing is asked.
    running = parse_observed(applied(one), ROOT)
    again = make_plan(one, running, Goal())
    assert acting_services(one, again) == []
    assert details_script(one, running, again, footings) == ""
    # A process without a port: only its footing makes it worth a question.
    bare = release(a={"runtime": "process", "address": None, "probe": None})
    seen = replace(parse_observed(applied(bare), ROOT), units={})
    plan = make_plan(bare, seen, Goal())
    assert plan.to == plan.source
    assert details_script(bare, seen, plan) == ""
    assert details_script(bare, seen, plan, {"a": Footing(True)}) != ""


def run_details(one: Release, footings: dict[str, Footing], path: str | None = None) -> Details:
    script = details_script(one, parse_observed("end\n", ROOT), fresh_plan(one), footings)
    script = f"PATH={path}:$PATH\n{script}" if path else script
    result = LocalHost("box").run(script)
    assert result.err == ""
    return parse_details(result.out)


@pytest.mark.skipif(NVIDIA, reason="this machine has a GPU")
def test_this_machine_has_no_gpu(tmp_path: Path) -> None:
    missing = run_details(release(), {}).missing
    assert missing.gpu in ("this machine has no NVIDIA device",
                           "the driver of the NVIDIA card is not loaded")  # fmt: skip
    assert missing.toolkit is False
    # With a program of the toolkit in the path Docker is taken at its word.
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    assert run_details(release(), {}, str(tmp_path)).missing.toolkit is True


def test_mounts_and_limits_of_this_machine(tmp_path: Path) -> None:
    gone = str(tmp_path / "a b" / "gone")
    footing = Footing(True, (str(tmp_path), "/proc", gone))
    missing = run_details(release(a={}), {"a": footing}).missing
    assert missing.devices[str(tmp_path)] == str(os.stat(tmp_path).st_dev)
    assert missing.devices["/proc"] != missing.devices["/"]
    assert gone not in missing.devices
    import resource

    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert missing.lock_limit == (None if hard == resource.RLIM_INFINITY else hard)


MACHINE = """\
address: m1
runtime: process
models: /mnt/nvme/models
HOSTPREP
services:
  locked:
    {kind: llama-cpp, model: https://example.org/m.gguf, port: 8001, program: /opt/engine,
     options: {load-mode: mmap+mlock}}
  plain: {kind: llama-cpp, model: /mnt/nvmes/n.gguf, port: 8002, program: /mnt/other/engine}
"""
REPOSITORY = Path(__file__).parents[2]


def one_machine(folder: Path, hostprep: str) -> Fleet:
    """The machine m1 with the real kind and templates."""
    kind = (REPOSITORY / "services" / "llama-cpp.yaml").read_text()
    text = MACHINE.replace("HOSTPREP", f"hostprep: {{{hostprep}}}")
    loaded = load_files(folder, {"inventory/m1.yaml": text, "services/llama-cpp.yaml": kind})
    assert loaded.errors == []
    return replace(loaded.fleet, template_dirs=(REPOSITORY / "templates",))


def test_footings_come_from_the_machine_file(tmp_path: Path) -> None:
    mounts = (
        "storage: {/mnt/nvme: {mount: true}, /mnt/other: {mount: true}, /mnt/n: {mount: false}}"
    )
    assert make_brief(one_machine(tmp_path, mounts), "m1").footings == {
        "locked": Footing(True, ("/mnt/nvme",)),
        # /mnt/nvmes is not below /mnt/nvme, but the models directory counts for what lies there.
        "plain": Footing(False, ("/mnt/nvme", "/mnt/other")),
    }


@pytest.mark.parametrize(("asked", "there"), [("true", True), ("false", False)])
def test_caches_are_dropped_only_where_it_is_asked_for(
    asked: str, there: bool, tmp_path: Path
) -> None:
    fleet = one_machine(tmp_path, f"memory-guard: {{drop-caches: {asked}}}")
    text = render(fleet, "m1", {}).files["control"].content.decode()
    drop = '[ "$(id -u)" = 0 ] && sync && echo 3 >/proc/sys/vm/drop_caches'
    assert (drop in text) == there
    assert ("drop_caches" in text) == there


class Counted(LocalHost):
    trips = 0

    def run(self, script: str, **options: Any) -> Any:
        self.trips += 1
        return super().run(script, **options)


def test_status_notes_full_disks_in_its_one_round_trip(tmp_path: Path) -> None:
    host = Counted("box")
    session = Session(host, replace(make_release({}), root=str(tmp_path)), False, {}, {})
    setting = Wanted("storage", str(tmp_path), {"min-free": 1 << 60})
    rows = status_rows(session, None, ground=Ground((setting,)))
    (note,) = [row["detail"] for row in rows if row["state"] == "note"]
    assert note.startswith(f"{tmp_path} has ")
    assert host.trips == 1
    enough = Ground((replace(setting, value={"min-free": 1}),))
    assert all(row["state"] != "note" for row in status_rows(session, None, ground=enough))
