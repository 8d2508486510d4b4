"""JSON Schema of the YAML files, from the models: editors complete and check with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inferfleet.load.load import FILE_KINDS
from inferfleet.release.write import bring_up_to_date

FOLDER = "inventory/schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file kind: machine, hardware or service."""
    model = FILE_KINDS[kind]
    body = model.model_json_schema(by_alias=True, mode="validation")
    body["title"] = f"inferbase {kind} file"
    return {"$schema": DIALECT, **body}


def schema_files() -> dict[str, str]:
    """File name in FOLDER -> its text, for every file kind."""
    return {
        f"{kind}.json": json.dumps(schema(kind), indent=2, ensure_ascii=True) + "\n"
        for kind in FILE_KINDS
    }


def write_schemas(root: Path) -> list[str]:
    """Bring the files in root/FOLDER up to date; the names of those that were not."""
    return bring_up_to_date(root / FOLDER, schema_files())
