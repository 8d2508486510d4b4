"""The way back of a start that others were stopped for, and of one that was cut off."""

from __future__ import annotations

from dataclasses import replace

from plan_cases import ROOT, applied, edited, make_release

from inferfleet.apply.variables import plan_variables
from inferfleet.observe.observed import Observed, parse_observed
from inferfleet.plan.diff import plan_lines
from inferfleet.plan.plan import Goal, Plan, make_plan
from inferfleet.plan.steps import Step
from inferfleet.plan.undo import Undo, way_back
from inferfleet.release.release import Release

JOURNAL = "1|1|switched|me@here|2026-01-02T03:04:05Z|up"


def pair() -> Release:
    """a runs; b is to be started in its place."""
    return make_release({"units": {"a": {}, "b": {"autostart": False, "address": None}}})


def seen(release: Release, *journal: str, a: str = "running", b: str = "") -> Observed:
    add = [["unit", "a", a, ""]] + ([["unit", "b", b, ""]] if b else [])
    add += [["journal", line] for line in journal]
    drop = [["unit"], ["started", "b"]]
    return parse_observed(edited(applied(release), drop, add), ROOT)


def evicting(release: Release, observed: Observed) -> Plan:
    plan = make_plan(release, observed, Goal(True, frozenset({"b"}), evict=True))
    at = [step.action for step in plan.steps].index("start")
    steps = (*plan.steps[:at], Step("evict", "a", "makes room for b: 5 GiB"), *plan.steps[at:])
    return replace(plan, steps=steps, room=7)


def test_what_is_stopped_comes_back() -> None:
    release = pair()
    observed = seen(release)
    plan = evicting(release, observed)
    undo = way_back(release, observed, plan)
    assert (undo.back, undo.remove, undo.stop, undo.replace) == (1, (), ("b",), ("a",))
    assert undo.returns(plan)
    told = plan_variables(release, observed, plan, undo)
    assert (told["gone"], told["start"], told["room"]) == ("a", "b", 7)
    assert (told["evicted"], told["ready"]) == ("a", "b")
    assert (told["back_stop"], told["back_replace"]) == ("b", "a")
    assert "- evict a  (makes room for b: 5 GiB)" in plan_lines(plan, release, {})


def test_a_container_of_an_older_configuration_is_made_anew() -> None:
    """To the reader it starts; merely started, it would keep what it was made with."""
    release = make_release({"units": {"a": {}, "b": {"autostart": False, "address": None}}})
    drop, add = [["unit"], ["started"]], [["unit", "a", "stopped", ""]]
    observed = parse_observed(edited(applied(release), drop, add), ROOT)
    plan = make_plan(release, observed, Goal(True, frozenset({"a", "b"})))
    assert plan_lines(plan, release, {})[-1] == "Plan: 2 services to start."
    told = plan_variables(release, observed, plan, way_back(release, observed, plan))
    assert (told["replace"], told["start"]) == ("a", "b")
    again = parse_observed(edited(applied(release), [["unit"], ["started", "b"]], add), ROOT)
    told = plan_variables(release, again, plan, way_back(release, again, plan))
    assert (told["replace"], told["start"]) == ("", "a b")


def after_a_cut(a: str, b: str) -> tuple[Plan, Undo]:
    """The next `up --service b`, when the journal says that a ran before."""
    release = pair()
    observed = seen(release, f"{JOURNAL}|b||a", a=a, b=b)
    plan = make_plan(release, observed, Goal(True, frozenset({"b"}), evict=True))
    return plan, way_back(release, observed, plan)


def test_a_cut_while_one_was_stopped_for_another() -> None:
    # Stopped, and the other not started: it starts, and if that fails the first one returns.
    plan, undo = after_a_cut("stopped", "")
    assert [step.action for step in plan.steps] == ["recover", "start"]
    assert plan.wait == ("b",)
    assert (undo.stop, undo.replace) == (("b",), ("a",))
    # Started already: nothing but to wait for it.
    plan, undo = after_a_cut("stopped", "starting")
    assert [step.action for step in plan.steps] == ["recover", "replace"]
    assert (undo.stop, undo.replace) == (("b",), ("a",))
    # Cut before the stop: nothing was lost.
    plan, undo = after_a_cut("running", "")
    assert undo.replace == ()
