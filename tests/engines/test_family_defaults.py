"""The table of families against the Config classes of transformers, where vLLM is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import transformers_defaults

from inferfleet.capacity.shape import families, fields

pytestmark = pytest.mark.vllm

GROUPS = (
    fields.LAYERS, fields.HIDDEN, fields.HEADS, fields.KV_HEADS, fields.HEAD, fields.INNER,
    fields.VOCAB, fields.CONTEXT, fields.WINDOW, fields.EXPERTS, fields.USED, fields.EXPERT,
)  # fmt: skip
NAMES = {group[0]: list(group) for group in GROUPS}


def told() -> list[str]:
    """The families of the table whose defaults are transformers' own."""
    section = families.TABLE.partition("# vLLM")[0].splitlines()
    return [line.split()[0] for line in section if line and line[0] != "#"]


def test_defaults_are_those_of_transformers(vllm_environment: Path) -> None:
    asked = {
        family: {key: NAMES.get(key, [key]) for key in families.defaults(family)}
        for family in told()
    }
    done = subprocess.run(
        [vllm_environment / "bin" / "python", transformers_defaults.__file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout)
    assert sorted(theirs) == told()
    compared, wrong = 0, []
    for family, values in theirs.items():
        for key, value in families.defaults(family).items():
            compared += values[key] is not None
            if values[key] is not None and values[key] != value:
                wrong.append(f"{family}: {key} is {values[key]}, not {value}")
    assert wrong == []
    assert compared > 900
