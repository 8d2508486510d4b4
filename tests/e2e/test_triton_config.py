"""What we render of Triton's model configuration, read back by Triton's own definition of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import render_cases
from testbed import notebooks
from testbed.shell import run

from inferfleet.services.pbtxt import CONSTANTS, MAPS, NUMBERED

pytestmark = pytest.mark.slow
# Triton's client of the version that services/triton.yaml knows; only its definitions are used.
WHEEL = "tritonclient==2.73.0"
READ = """
import sys
sys.path.insert(0, sys.argv[1])
import model_config_pb2 as triton
from google.protobuf import text_format
for path in sys.argv[2:]:
    found = text_format.Parse(open(path).read(), triton.ModelConfig())
    print(found.name, len(found.input), [list(one.dims) for one in found.input],
          dict(found.ensemble_scheduling.step[0].input_map) if "both" in path else "",
          {key: value.string_value for key, value in found.parameters.items()})
enums, maps, numbered, seen = set(), set(), set(), set()
def walk(message):
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.enum_type:
            enums.add(field.name)
        if field.message_type:
            if field.message_type.GetOptions().map_entry:
                maps.add(field.name)
                if field.message_type.fields_by_name["key"].cpp_type != field.CPPTYPE_STRING:
                    numbered.add(field.name)
            walk(field.message_type)
walk(triton.ModelConfig.DESCRIPTOR)
print(sorted(enums), sorted(maps), sorted(numbered))
"""


def test_triton_reads_every_configuration(tmp_path: Path) -> None:
    environment = notebooks.build()
    run(environment / "bin" / "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path, WHEEL)
    wheel = next(tmp_path.glob("*.whl"))
    definitions = tmp_path / "definitions"
    run("python3", "-m", "zipfile", "-e", wheel, definitions)
    paths = []
    for path, file in render_cases.render_case("lab").files.items():
        if path.endswith("config.pbtxt"):
            paths.append(tmp_path / path.replace("/", "-"))
            paths[-1].write_bytes(file.content)
    done = subprocess.run(
        [environment / "bin" / "python", "-c", READ, definitions / "tritonclient" / "grpc", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *models, fields = done.stdout.splitlines()
    assert sorted(models) == [
        "add_sub 2 [[4], [-1, 4]]  {'EXECUTION_ENV_PATH': '/x \"y\"\\n$HOME'}",
        "both 1 [[4]] {'INPUT0': 'IN'} {}",
        "written 0 []  {}",
    ]
    # The one map called `input` shares its name with a message; see inferfleet/services/pbtxt.py.
    assert fields == f"{sorted(CONSTANTS)} {sorted({*MAPS, 'input'})} {sorted(NUMBERED)}"
