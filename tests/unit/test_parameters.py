"""Parameters of a Modelfile: the nearest real name and the type, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_files import error_lines, load_files

KIND = """\
summary: takes a Modelfile
api: ollama
model: {bare: ollama}
default-port: 1
parameters:
  num_ctx: a whole number
  temperature: a number
  use_mmap: true or false
  stop: text or a list of texts
process: {command: ["{program}"]}
"""
MACHINE = """\
services:
  chat:
    kind: talker
    program: /bin/x
    model: ollama:a:b
    served-name: own
    modelfile:
      parameters: {PARAMETERS}
"""


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("num_ctx: 4096, temperature: 1, use_mmap: false, stop: a", ""),
        ("temperature: 0.5, stop: [a, b]", ""),
        ("num_cxt: 1", "num_cxt: kind talker has no such parameter\nhint: did you mean num_ctx?"),
        ("num_ctx: many", "num_ctx: should be a whole number"),
        ("num_ctx: true", "num_ctx: should be a whole number"),
        ("num_ctx: 0.5", "num_ctx: should be a whole number"),
        ("temperature: hot", "temperature: should be a number"),
        ("use_mmap: 1", "use_mmap: should be true or false"),
        ("stop: [a, 1]", "stop: should be text or a list of texts"),
    ],
)
def test_parameters(tmp_path: Path, parameters: str, complaint: str) -> None:
    machine = MACHINE.replace("PARAMETERS", parameters)
    loaded = load_files(tmp_path, {"services/talker.yaml": KIND, "inventory/m.yaml": machine})
    said = error_lines(loaded)
    path = "services.chat.modelfile.parameters."
    assert said.partition(path)[2] == complaint
    assert bool(said) == bool(complaint)
