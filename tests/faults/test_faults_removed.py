"""Services that leave the machine file: renamed, removed, in any state, with a run cut off."""

from __future__ import annotations

import json

import pytest
from faults.fleet import FleetBox
from faults.test_faults_killed import FollowedHost, KillingHost, is_server
from ports import free_port

from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.plan.plan import Goal

# The new generation is in force, and what it has no more still runs.
SWITCHED = ("ok=yes", "if")


def rename(box: FleetBox, new: str, word: str, **more: object) -> None:
    """The one service under another name, on the same port."""
    box.services.clear()
    box.serve(word, new, port=box.port, **more)


def traces(box: FleetBox, service: str) -> list[str]:
    """What there is of a service under .inferbase, generations and their records aside."""
    found = [p for p in box.state.rglob("*") if "generations" not in p.parts and p.name == service]
    return sorted(str(path.relative_to(box.state)) for path in found)


def servers(box: FleetBox) -> int:
    return len([pid for pid in box.processes() if is_server(pid)])


def settled(box: FleetBox) -> None:
    """Nothing to do, nothing left over, one server."""
    plan = box.plan()
    assert plan.empty, plan
    assert box.leftovers() == []
    assert servers(box) == 1


def test_a_service_is_renamed_and_back(box: FleetBox) -> None:
    rename(box, "other", "two")
    planned = box.plan()
    assert [(s.action, s.target) for s in planned.steps if s.action in {"remove", "start"}] == [
        ("remove", "echo"),
        ("start", "other"),
    ]
    outcome = box.up()
    assert outcome.ok, outcome
    assert box.says() == "two"
    assert traces(box, "echo") == []
    settled(box)
    assert box.rollback().ok
    assert box.says() == "one"
    assert (box.current(), traces(box, "other"), servers(box)) == (1, [], 1)
    assert box.up().ok
    assert box.says() == "two"
    settled(box)


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_a_service_is_removed_in_any_state(box: FleetBox, state: str) -> None:
    box.serve("more", "extra", port=free_port())
    assert box.up().ok
    run = box.root / "current" / "process" / "extra" / "run"
    if state != "running":
        assert box.session().host.run(f"sh {run} stop").exit == 0
    if state == "failed":
        (box.state / "run" / "extra" / "failed").write_text("1\n")
    assert box.observed().units["extra"].state == state
    del box.services["extra"]
    box.write()
    outcome = box.up()
    assert outcome.ok, outcome
    assert traces(box, "extra") == []
    assert box.says() == "one"
    settled(box)


def test_apply_and_a_choice_of_services_remove_it_too(box: FleetBox) -> None:
    box.serve("more", "extra", port=free_port())
    assert box.up().ok
    del box.services["extra"]
    box.write()
    for goal in (Goal(services=frozenset({"echo"})), Goal(start=False)):
        assert box.planned(goal).plan.targets("remove") == ["extra"]
    planned = box.planned(Goal(services=frozenset({"echo"})))
    assert planned.talk.apply(planned, "up", lambda event: None).ok
    assert traces(box, "extra") == []
    settled(box)


@pytest.mark.parametrize(
    "host",
    [
        FollowedHost(*SWITCHED),
        KillingHost('control "$gens/$from/control" remove'),
        KillingHost('drop_links "$unlinks"'),
        KillingHost("say 'started"),
        KillingHost('record "$what"'),
        KillingHost("forget $forget"),
        KillingHost('if [ "$confirm" = yes ]; then set'),
    ],
    ids=["switched", "stop", "stopped", "started", "commit", "forget", "forgot"],
)
def test_a_rename_cut_off_converges(box: FleetBox, host: LocalHost) -> None:
    rename(box, "other", "two")
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=host)
    assert box.current() == 2
    outcome = box.up()
    assert outcome.ok, outcome
    assert box.says() == "two"
    assert traces(box, "echo") == []
    settled(box)


def test_the_run_that_clears_up_is_cut_off_too(box: FleetBox) -> None:
    rename(box, "other", "two")
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=FollowedHost(*SWITCHED))
    rename(box, "third", "three")
    for host in (
        KillingHost('control "$gens/$number/control" remove'),
        KillingHost('problem=$(mv -T "$new"'),
        FollowedHost(*SWITCHED),
        KillingHost("say 'started"),
    ):
        with pytest.raises(FleetError, match="ended early"):
            box.up(host=host)
    assert box.up().ok
    assert box.says() == "three"
    assert (traces(box, "echo"), traces(box, "other")) == ([], [])
    settled(box)


def test_cut_off_and_the_old_name_is_written_again(box: FleetBox) -> None:
    rename(box, "other", "two")
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=KillingHost("say 'started"))
    rename(box, "echo", "three")
    assert box.up().ok
    assert box.says() == "three"
    assert traces(box, "other") == []
    settled(box)


def test_cut_off_and_then_never_ready_returns_to_the_old_name(box: FleetBox) -> None:
    rename(box, "other", "two", mode="never", **{"start-timeout": "1s"})
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=FollowedHost(*SWITCHED))
    outcome = box.up()
    assert outcome.rolled_back
    assert outcome.notes == ()
    assert (box.says(), box.current(), traces(box, "other")) == ("one", 1, [])
    rename(box, "echo", "one")
    box.services["echo"] = {k: v for k, v in box.services["echo"].items() if k != "start-timeout"}
    box.write()
    settled(box)


def test_down_after_a_rename_that_was_cut_off(box: FleetBox) -> None:
    rename(box, "other", "two")
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=FollowedHost(*SWITCHED))
    assert box.down().ok
    assert (box.processes(), traces(box, "echo")) == ([], [])
    assert box.leftovers() == []


def test_down_of_another_service_after_a_rename_that_was_cut_off(box: FleetBox) -> None:
    """It ends what was left, too: the journal goes, and nothing would tell of it any more."""
    box.serve("more", "extra", port=free_port())
    assert box.up().ok
    box.services.pop("echo")
    box.serve("two", "other", port=box.port)
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=FollowedHost(*SWITCHED))
    planned = box.session().plan_down(frozenset({"extra"}))
    assert planned.plan.targets("remove") == ["echo", "extra"]
    assert planned.talk.apply(planned, "down", lambda event: None).ok
    assert (box.says(), servers(box), traces(box, "echo")) == (None, 0, [])
    assert box.leftovers() == []
    assert box.up().ok
    assert box.says() == "two"


def test_what_is_left_of_a_service_that_moved_leaves_its_record(box: FleetBox) -> None:
    box.serve("two")
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=KillingHost("say 'started"))
    # As if the generation before had kept it running in another way, which ended in time.
    before = box.state / "generations" / "1"
    units = before / ".units"
    units.write_text(units.read_text().replace("process echo ", "process past "))
    manifest = json.loads((before / ".manifest").read_text())
    manifest["units"]["echo"]["name"] = "past"
    (before / ".manifest").write_text(json.dumps(manifest) + "\n")
    (before / "process" / "past").mkdir()
    (before / "process" / "past" / "run").write_text("exit 0\n")
    plan = box.plan()
    assert (plan.left, plan.gone) == (((1, "echo"),), [])
    assert box.up().ok
    assert box.says() == "two"
    settled(box)
