"""Mistakes in the form of a file hide no others, and are never the cause of another one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import render_cases
import yaml
from fleet_files import error_lines, load_files
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inferfleet.errors import Where
from inferfleet.load import yaml12
from inferfleet.load.check import check
from inferfleet.load.partial import partial
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine
from inferfleet.schema.unreadable import UNREADABLE, UnreadableError, known, readable

TEXT = """\
hardware: boxx
bogus: 1
secrets: {PAGE_KEY: hunter2}
services:
  a: {kind: engin, model: /m, port: 80}
  b: {kind: engine, model: /m, port: 80}
  c: {kind: engine, model: /m, port: 80, cpus: x}
  d: {kind: engine, model: [1], modle: 1}
  e: {kind: engine, prot: 9, model: s3://b/k}
  p: {kind: page, port: 3000, secrets: [PAGE_KEY, NONE]}
"""
TOLD = """\
inventory/m.yaml:1:11: hardware: there is no hardware boxx
hint: did you mean box?
inventory/m.yaml:2:1: bogus: unknown key
inventory/m.yaml:3:21: secrets.PAGE_KEY: is written out
hint: never write a secret into a file: write {env: NAME} and set that variable, or {file: PATH}, \
or {command: [...]}
inventory/m.yaml:5:13: services.a.kind: there is no service kind engin
hint: did you mean engine?
inventory/m.yaml:6:38: services.b.port: 80 is also the port of a
hint: give one of them another port
inventory/m.yaml:7:38: services.c.port: 80 is also the port of a
hint: give one of them another port
inventory/m.yaml:7:48: services.c.cpus: should be a number, found text "x"
inventory/m.yaml:8:28: services.d.model: should be text or keys with values, found a list
inventory/m.yaml:8:33: services.d.modle: unknown key
hint: did you mean model?
inventory/m.yaml:9:21: services.e.prot: unknown key
hint: did you mean port?
inventory/m.yaml:9:37: services.e.model: model source 's3://b/k' has the unknown scheme s3:
inventory/m.yaml:10:51: services.p.secrets[1]: the machine has no secret NONE"""


def test_everything_is_told_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = error_lines(load_files(tmp_path, {"inventory/m.yaml": TEXT})).splitlines()
    long = ("hint: valid keys", "hint: write hf:", "hint: secrets:")
    assert [line for line in told if not line.startswith(long)] == TOLD.splitlines()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        # A machine, a kind, a profile, a model that cannot be read at all, and others that name it.
        (
            {
                "inventory/m.yaml": "a: b: c\n",
                "inventory/n.yaml": "address: n\njump: m\n",
            },
            ["inventory/m.yaml:1:5: is not valid YAML"],
        ),
        (
            {
                "services/engine.yaml": "- 1\n",
                "inventory/m.yaml": "services: {s: {kind: engine, model: /m, options: {x: 1}}}\n",
            },
            ["services/engine.yaml:1:1: should hold keys with values"],
        ),
        (
            {
                "hostprep/p.yaml": "summary: 1\nsettings: []\n",
                "inventory/m.yaml": "hostprep: [p]\nservices: {s: {kind: engin, model: /m}}\n",
            },
            [
                "hostprep/p.yaml:1:10: summary",
                "inventory/m.yaml:2:22: services.s.kind: there is no",
            ],
        ),
        (
            {
                "inventory/models/x.yaml": "source: 1\n",
                "inventory/m.yaml": "services: {s: {kind: engine, model: x}}\n",
            },
            ["inventory/models/x.yaml:1:9: source: should be text"],
        ),
        (
            {
                "services/k.yaml": "summary: s\napi: http\nmetrics: {path: /, port: no}\n"
                "compose: {image: 'x:1', port: 1, user: '1:1'}\n",
            },
            ["services/k.yaml:3:26: metrics.port: the container has no port no"],
        ),
    ],
)
def test_what_cannot_be_read_is_told_once(
    files: dict[str, str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = sorted(str(error) for error in load_files(tmp_path, files).errors)
    assert len(errors) == len(told)
    assert all(error.startswith(words) for error, words in zip(errors, told, strict=True))


CASES = {
    name: yaml.safe_load((render_cases.CASES / name / f"inventory/case-{name}.yaml").read_text())
    for name in render_cases.NAMES
}
KINDS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (render_cases.REPOSITORY / "services").glob("*.yaml")
}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def broken(data: dict[str, Any], path: tuple[str | int, ...]) -> str:
    """The file with something at the place that no key takes."""
    data = copy.deepcopy(data)
    inner: Any = data
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = [[[]]]
    return yaml.safe_dump(data, sort_keys=False)


@cache
def fleet() -> Fleet:
    """All machines of the render cases, in one fleet without mistakes."""
    made = {f"case-{name}": Machine.model_validate(text) for name, text in CASES.items()}
    return replace(render_cases.fleet("workstation"), machines=made)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_wrong_value_of_a_machine_causes_no_other(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CASES)))
    path = data.draw(st.sampled_from(list(places(CASES[name]))))
    found = partly(Machine, broken(CASES[name], path))
    assert_no_other(replace(fleet(), machines={f"case-{name}": found}))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_wrong_value_of_a_kind_causes_no_other(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(KINDS)))
    path = data.draw(st.sampled_from(list(places(KINDS[name]))))
    found = partly(Kind, broken(KINDS[name], path))
    assert_no_other(replace(fleet(), kinds={**fleet().kinds, name: found}))


def partly(model: type[Any], text: str) -> Any:
    """What is left of a file that has a mistake."""
    node = yaml12.read(text.encode(), "x.yaml").root
    assert node is not None
    try:
        model.model_validate(node.plain(), by_alias=True, by_name=False)
    except ValidationError as error:
        return partial(model, node, error)
    assume(False)  # some places take anything
    return None


def test_the_cases_have_no_mistake() -> None:
    assert_no_other(fleet())


def assert_no_other(fleet: Fleet) -> None:
    def locate(kind: str, name: str, *path: str | int, key: bool = False) -> Where:
        return Where(name, 1, 1)

    assert [str(error) for error in check(fleet, locate)] == []


def test_whoever_looks_at_an_unreadable_value_learns_nothing() -> None:
    looks = [bool, str, len, list, hash, int, lambda it: it == 1, lambda it: isinstance(it, dict),
             lambda it: it.name, lambda it: it in {1: 2}, lambda it: f"{it}"]  # fmt: skip
    for look in looks:
        with pytest.raises(UnreadableError):
            look(UNREADABLE)
        assert known(look, UNREADABLE) is None
    assert list(readable(x.real for x in (1, UNREADABLE, 2))) == [1]
    assert UNREADABLE is not None
