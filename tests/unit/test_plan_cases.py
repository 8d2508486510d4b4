"""The table of plans: each case, and its twin, the same machine after the change."""

from __future__ import annotations

import pytest
from plan_cases import Case, cases

ALL = cases()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_plan_is_exact(case: Case) -> None:
    plan = case.plan(case.observed)
    expect = case.expect
    assert [[s.action, s.target, s.reason] for s in plan.steps] == expect["steps"]
    assert [problem.what for problem in plan.problems] == expect.get("problems", [])
    assert list(plan.notes) == expect.get("notes", [])
    assert (plan.source, plan.to) == (expect["source"], expect["to"])
    assert list(plan.wait) == expect.get("wait", [])
    assert sorted(plan.hidden) == expect.get("hidden", [])
    assert {p.code for p in plan.problems} <= {expect.get("code", 1)}
    assert all(p.hint for p in plan.problems)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_twin_changes_nothing(case: Case) -> None:
    plan = case.plan(case.twin)
    restarts = [step for step in plan.steps if step.reason == "was asked to restart"]
    assert plan.steps == (tuple(restarts) if case.expect.get("again") else ())
    assert plan.problems == ()
    assert plan.notes == ()
    assert plan.source == plan.to
