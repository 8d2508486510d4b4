"""Plain data as the text form of a Triton model configuration (config.pbtxt); pure.

The form does not say of a word whether it is text or a constant, nor of a mapping whether it is a
message or a map: both follow from the field, and these are the fields of model_config.proto
(triton-inference-server/common) that differ from what their values look like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from inferfleet.errors import USAGE, FleetError

# Fields whose values are constants, such as data_type: TYPE_FP32; priority is a number elsewhere.
CONSTANTS = frozenset({"data_type", "format", "kind", "priority", "timeout_action"})
# Fields that map a text to a value. The one map that is called `input`, of a graph of CUDA, has to
# be written as a list of {key, value}: everywhere else `input` is a message.
MAPS = frozenset(
    {
        "cc_model_filenames", "input_map", "inputs", "metric_tags", "output_map", "parameters",
        "priority_queue_policy",
    }
)  # fmt: skip
# Those of them that map a whole number, a uint64.
NUMBERED = frozenset({"priority_queue_policy"})
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def message(fields: Mapping[str, object], where: str, indent: str = "") -> str:
    """Every field on lines of its own. where: how messages name the place. Raises FleetError."""
    return "".join(_field(name, value, f"{where}.{name}", indent) for name, value in fields.items())


def _field(name: str, value: object, where: str, indent: str) -> str:
    if not isinstance(name, str) or not _FIELD.fullmatch(name):
        raise FleetError(
            f"{where}: {name!r} cannot be a field of a model configuration",
            "field names are small letters, digits and _",
            code=USAGE,
        )
    if name in MAPS and isinstance(value, dict):
        return "".join(
            f"{indent}{name} {{\n"
            f"{_entry(name, key, item, f'{where}.{key}', indent + '  ')}{indent}}}\n"
            for key, item in value.items()
        )
    values = value if isinstance(value, list) else [value]
    return "".join(_one(name, item, where, indent) for item in values)


def _key(name: str, key: str, where: str) -> str:
    if name not in NUMBERED:
        return _scalar("key", key, where)
    if not _NUMBER.fullmatch(key) or int(key) >= 2**64:
        raise FleetError(
            f"{where}: the keys of {name} are numbers",
            "write a priority as a whole number in quotes",
            code=USAGE,
        )
    return key


def _entry(name: str, key: object, value: object, where: str, indent: str) -> str:
    return f"{indent}key: {_key(name, str(key), where)}\n" + _one("value", value, where, indent)


def _one(name: str, value: object, where: str, indent: str) -> str:
    if isinstance(value, dict):
        return f"{indent}{name} {{\n{message(value, where, indent + '  ')}{indent}}}\n"
    return f"{indent}{name}: {_scalar(name, value, where)}\n"


def _scalar(name: str, value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if name in CONSTANTS and _CONSTANT.fullmatch(value):
            return value
        return f'"{"".join(_char(char) for char in value)}"'
    raise FleetError(f"{where}: a model configuration cannot hold this value", code=USAGE)


def _char(char: str) -> str:
    if named := _ESCAPED.get(char):
        return named
    return f"\\{ord(char):03o}" if ord(char) < 0x20 or ord(char) == 0x7F else char
