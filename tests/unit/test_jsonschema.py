"""The JSON Schema files: current, complete, and named by every YAML file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferfleet.load.jsonschema import DIALECT, FOLDER, schema, schema_files, write_schemas
from inferfleet.load.load import FILE_KINDS, FOLDERS
from inferfleet.load.yaml12 import read
from inferfleet.paths import PACKAGE

ROOT = PACKAGE.parent
FILES = [
    pytest.param(kind, path, id=f"{kind}-{path.stem}")
    for kind, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).glob("*.yaml"))
]


def test_the_checked_in_files_are_current() -> None:
    there = {path.name: path.read_text() for path in (ROOT / FOLDER).iterdir()}
    assert there == schema_files(), "run: invoke inventory.schema"


def test_writing_touches_only_what_is_stale(tmp_path: Path) -> None:
    assert sorted(write_schemas(tmp_path)) == sorted(schema_files())
    assert write_schemas(tmp_path) == []
    (tmp_path / FOLDER / "machine.json").write_text("{}")
    assert write_schemas(tmp_path) == ["machine.json"]


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_every_mapping_of_a_schema_refuses_unknown_keys(kind: str) -> None:
    body = schema(kind)
    assert body["$schema"] == DIALECT
    for name, part in objects(body):
        assert part["additionalProperties"] is False, name
        for key in part["properties"]:
            assert "_" not in key


@pytest.mark.parametrize("kind", ["machine", "hardware", "profile"])
def test_every_key_is_described(kind: str) -> None:
    for name, part in objects(schema(kind)):
        assert part["description"], name
        for key, value in part["properties"].items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(("kind", "path"), FILES)
def test_yaml_files_name_their_schema_and_fit_it(kind: str, path: Path) -> None:
    text = path.read_text()
    prefix = "# yaml-language-server: $schema="
    first = text.splitlines()[0]
    assert first.startswith(prefix)
    target = (path.parent / first.removeprefix(prefix)).resolve()
    assert target == ROOT / FOLDER / f"{kind}.json"
    root = read(text.encode(), str(path)).root
    assert root is not None
    body = json.loads(target.read_text())
    assert misfits(root.plain(), body, body) == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("machine", {"adress": "x"}),
        ("machine", {"port": 70000}),
        ("machine", {"services": {"s": {}}}),
        ("machine", {"services": {"s": {"kind": "Vllm"}}}),
        ("machine", {"runtime": "docker"}),
        ("hardware", {"summary": "x", "gpu": {}}),
        ("machine", {"hostprep": ["Inference"]}),
        ("machine", {"hostprep": {"profile": ["inference"]}}),
        ("machine", {"hostprep": {"gpu": {"power-limit": -5}}}),
        ("profile", {"summary": "x"}),
        ("profile", {"summary": "x", "settings": [{"why": "w", "sysctl": {"a.b": 1}}]}),
        (
            "profile",
            {"summary": "x", "settings": [{"why": "w", "source": "s", "sysctl": {"a": 1}}]},
        ),
        (
            "profile",
            {"summary": "x", "settings": [{"why": "w", "source": "s", "sysfs": {"/sys/../x": 1}}]},
        ),
    ],
)
def test_the_schema_refuses_mistakes(kind: str, data: object) -> None:
    body = schema(kind)
    assert misfits(data, body, body)


def objects(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", body
    for name, part in body.get("$defs", {}).items():
        if part.get("type") == "object":
            yield name, part


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def misfits(value: Any, part: dict[str, Any], body: dict[str, Any], at: str = "") -> list[str]:
    """A validator for the keywords that our schemas use."""
    import re

    if "$ref" in part:
        target: dict[str, Any] = body
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return misfits(value, target, body, at)
    if "anyOf" in part:
        found = [misfits(value, option, body, at) for option in part["anyOf"]]
        return [] if [] in found else [f"{at}: fits nothing"]
    if "type" in part and (
        not isinstance(value, TYPES[part["type"]])
        or (isinstance(value, bool) and part["type"] in ("integer", "number"))
    ):
        return [f"{at}: no {part['type']}"]
    wrong = []
    if "enum" in part and value not in part["enum"]:
        wrong.append(f"{at}: not in the enum")
    if "const" in part and value != part["const"]:
        wrong.append(f"{at}: not the constant")
    if isinstance(value, str) and not re.search(part.get("pattern", ""), value):
        wrong.append(f"{at}: pattern")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < part.get("minimum", value) or value > part.get("maximum", value):
            wrong.append(f"{at}: out of bounds")
        if "exclusiveMinimum" in part and value <= part["exclusiveMinimum"]:
            wrong.append(f"{at}: out of bounds")
    if isinstance(value, list) and "items" in part:
        for index, item in enumerate(value):
            wrong += misfits(item, part["items"], body, f"{at}[{index}]")
    if isinstance(value, dict):
        properties = part.get("properties", {})
        wrong += [f"{at}: {key} is missing" for key in part.get("required", ()) if key not in value]
        for key, item in value.items():
            if key in properties:
                wrong += misfits(item, properties[key], body, f"{at}.{key}")
            elif part.get("additionalProperties") is False:
                wrong += members(key, item, part, body, at)
            elif isinstance(part.get("additionalProperties"), dict):
                wrong += misfits(item, part["additionalProperties"], body, f"{at}.{key}")
            elif "patternProperties" in part:
                wrong += members(key, item, part, body, at)
    return wrong


def members(key: str, item: Any, part: dict[str, Any], body: dict[str, Any], at: str) -> list[str]:
    import re

    for pattern, inner in part.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return misfits(item, inner, body, f"{at}.{key}")
    return [f"{at}: unknown key {key}"]
