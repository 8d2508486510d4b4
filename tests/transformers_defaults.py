"""Defaults of transformers' Config classes for the families on stdin; run by vLLM's interpreter.

stdin: {family: {key: [its names]}}; stdout: {family: {key: default}}, without what a class
computes or does not have.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def default(cls: Any, names: list[str]) -> Any:
    """What the class says of the first of these names that it has, through its own aliases."""
    fields = cls.__dataclass_fields__
    for name in names:
        for one in (name, cls.attribute_map.get(name)):
            if one in fields and isinstance(fields[one].default, int):
                return fields[one].default
    return None


def main() -> None:
    from transformers import CONFIG_MAPPING

    found = {}
    for family, keys in json.load(sys.stdin).items():
        named = [one for one in (f"{family}_text", family) if one in CONFIG_MAPPING]
        if named:
            cls: Any = CONFIG_MAPPING[named[0]]
            found[family] = {key: default(cls, names) for key, names in keys.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
