"""Reading the observation of a machine: whole, cut short, damaged, odd."""

from __future__ import annotations

import json

import pytest
from plan_cases import ROOT, applied, edited, make_release, text

from inferfleet.errors import FleetError
from inferfleet.observe.observed import Journal, Lock, UnitState, parse_observed
from inferfleet.release.manifest import dump_manifest, load_manifest

RELEASE = make_release({"units": {"a": {}, "b": {"address": None, "probe": None}}})


def test_whole() -> None:
    seen = parse_observed(applied(RELEASE, 3), ROOT)
    assert seen.current == 3
    assert seen.generations == (3,)
    assert seen.units == {
        "a": UnitState("running", "Up 2 hours"),
        "b": UnitState("running", "Up 2 hours"),
    }
    assert seen.started == {"a": "digest-a", "b": "digest-b"}
    assert seen.listeners == {("127.0.0.1", 8080)}
    assert seen.facts["arch"] == "x86_64"
    assert seen.manifest is not None
    assert seen.manifest.units == RELEASE.units
    assert seen.files == {"compose.yaml": (RELEASE.files["compose.yaml"].sha256, "644")}
    assert (seen.lock, seen.journal, seen.origin, seen.damage) == (None, None, None, ())


def test_what_services_were_started_with() -> None:
    rows = [["loaded", "a", "/m/x", ".x@1"], ["loaded", "a", "/m/c/p.txt", ""], ["loaded", "b"]]
    seen = parse_observed(text([*rows, ["end"]]), ROOT)
    assert seen.loaded == {"a": {"/m/x": ".x@1", "/m/c/p.txt": ""}}


@pytest.mark.parametrize("cut", [0, 1, 40, 400, -4])
def test_cut_short(cut: int) -> None:
    with pytest.raises(FleetError, match="cut short"):
        parse_observed(applied(RELEASE)[:cut], ROOT)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000:0016", ("0.0.0.0", 22)),
        ("00000000000000000000000001000000:1F90", ("::1", 8080)),
        ("00000000000000000000000000000000:1F90", ("::", 8080)),
        ("0000000000000000FFFF00000100007F:1F90", ("127.0.0.1", 8080)),
    ],
)
def test_listeners(word: str, found: tuple[str, int]) -> None:
    assert parse_observed(text([["listen", word], ["end"]]), ROOT).listeners == {found}


@pytest.mark.parametrize(
    "row",
    [
        ["listen", "zz:1"], ["listen"], ["generation", "x"], ["generation"], ["unit"], ["sum"],
        ["mode", "644"], ["link"], ["fact"], ["lock", "alive"], ["current"], ["model"],
        ["unit", "a\x85b", "running"], ["trouble", "compose", "\ufffd\x0b\x1c"], ["nonsense", "x"],
    ],
)  # fmt: skip
def test_odd_records_break_nothing(row: list[str]) -> None:
    observed = edited(applied(RELEASE), [], [row])
    seen = parse_observed(observed, ROOT)
    assert seen.manifest is not None
    assert seen.units["a"].state == "running"
    assert seen.damage == ()


def test_a_unit_with_a_state_only() -> None:
    seen = parse_observed(text([["unit", "a", "stopped"], ["unit", "b"], ["end"]]), ROOT)
    assert seen.units == {"a": UnitState("stopped", ""), "b": UnitState("unknown", "")}


@pytest.mark.parametrize("target", ["/opt/x", ".inferbase/generations/x", "", "!"])
def test_foreign_current(target: str) -> None:
    seen = parse_observed(text([["current", target], ["end"]]), ROOT)
    assert (seen.current, seen.foreign_current) == (0, target)


def test_another_users_records() -> None:
    rows = [["unreadable", f"{ROOT}/current/.manifest"], ["end"]]
    with pytest.raises(FleetError, match="not readable") as caught:
        parse_observed(text(rows), ROOT)
    assert "sudo: true" in caught.value.hint


@pytest.mark.parametrize("line", ["", "x", "1|2", "a|2|staged|w|t|up|||", "1|2|lost|w|t|up|||"])
def test_damaged_journal_is_named_with_its_remedy(line: str) -> None:
    seen = parse_observed(text([["journal", line], ["end"]]), ROOT)
    assert seen.journal is None
    (damage,) = seen.damage
    assert damage.what == f"{ROOT}/.inferbase/journal is damaged"
    assert f"rm {ROOT}/.inferbase/journal" in damage.hint


def test_journal_keeps_the_way_back() -> None:
    line = "3|4|switched|me@here|2026-01-02T03:04:05Z|up|a b||c"
    journal = Journal.parse(line)
    assert journal is not None
    assert (journal.remove, journal.stop, journal.replace) == (("a", "b"), (), ("c",))
    assert journal.interrupted_at(4)
    assert not journal.interrupted_at(3)
    assert "generation 9 is in force, neither 3 nor 4" in journal.verdict(9)


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"format":2}', '{"format":1}'])
def test_damaged_manifest_names_what_can_be_returned_to(body: str) -> None:
    rows = [["current", ".inferbase/generations/2"], ["generation", "1"], ["generation", "2"]]
    seen = parse_observed(text([*rows, ["manifest", body], ["end"]]), ROOT)
    assert seen.manifest is None
    (damage,) = seen.damage
    assert damage.what.startswith(f"{ROOT}/.inferbase/generations/2/.manifest is damaged")
    assert "`invoke rollback --to N` returns to one of 1; " in damage.hint


def test_manifest_round_trip() -> None:
    line = dump_manifest(RELEASE)
    assert "\n" not in line
    read = load_manifest(line, "here")
    assert read.units == RELEASE.units
    assert read.digest == RELEASE.digest
    assert read.files == {
        path: (file.sha256, file.mode, file.secret) for path, file in RELEASE.files.items()
    }
    broken = json.loads(line)
    broken["units"]["a"].pop("digest")
    with pytest.raises(FleetError, match="here is damaged"):
        load_manifest(json.dumps(broken), "here")


@pytest.mark.parametrize("holder", ["", "?", "12", "12|3|ann@x|t|up|more", "\u0663|1|x"])
def test_lock_holders_of_any_form(holder: str) -> None:
    lock = Lock.parse(holder, alive=False)
    assert lock.pid == (12 if holder.startswith("12") else 0)
    assert "process" in str(lock)
