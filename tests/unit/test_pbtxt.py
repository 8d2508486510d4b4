"""Plain data as the text of a Triton model configuration."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from inferfleet.errors import FleetError
from inferfleet.services.pbtxt import message


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "a b"}, 'name: "a b"\n'),
        (
            {"max_batch_size": 8, "ratio": 0.5, "decoupled": True},
            "max_batch_size: 8\nratio: 0.5\ndecoupled: true\n",
        ),
        ({"data_type": "TYPE_FP32"}, "data_type: TYPE_FP32\n"),
        # The same word is text where the field holds text, and text where it is no constant.
        ({"name": "TYPE_FP32", "kind": "my kind"}, 'name: "TYPE_FP32"\nkind: "my kind"\n'),
        ({"dims": [1, -1]}, "dims: 1\ndims: -1\n"),
        (
            {"input": [{"name": "A"}, {"name": "B"}]},
            'input {\n  name: "A"\n}\ninput {\n  name: "B"\n}\n',
        ),
        ({"dynamic_batching": {}}, "dynamic_batching {\n}\n"),
        (
            {"parameters": {"x": {"string_value": "y"}}},
            'parameters {\n  key: "x"\n  value {\n    string_value: "y"\n  }\n}\n',
        ),
        ({"input_map": {"IN": "raw"}}, 'input_map {\n  key: "IN"\n  value: "raw"\n}\n'),
        # The one map whose keys are numbers.
        (
            {"priority_queue_policy": {"1": {"max_queue_size": 5}}},
            "priority_queue_policy {\n  key: 1\n  value {\n    max_queue_size: 5\n  }\n}\n",
        ),
        ({"name": 'q" \\ \n \x01'}, 'name: "q\\" \\\\ \\n \\001"\n'),
        ({"priority": "PRIORITY_MAX"}, "priority: PRIORITY_MAX\n"),
        ({"priority": 2}, "priority: 2\n"),
    ],
)
def test_fields(fields: Mapping[str, object], text: str) -> None:
    assert message(fields, "m") == text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": None}, "m.name: a model configuration cannot hold this value"),
        ({"input": [{"name": "A", "dims": [[1]]}]}, "m.input.dims: a model configuration cannot"),
        ({"a {}\nb": 1}, "cannot be a field"),
        ({"Name": 1}, "cannot be a field"),
        ({"priority_queue_policy": {"high": {}}}, "policy.high: the keys .* are numbers"),
        ({"priority_queue_policy": {"01": {}}}, "policy.01: the keys .* are numbers"),
        ({"priority_queue_policy": {str(2**64): {}}}, "the keys .* are numbers"),
    ],
)
def test_refused(fields: Mapping[str, object], words: str) -> None:
    with pytest.raises(FleetError, match=words):
        message(fields, "m")
