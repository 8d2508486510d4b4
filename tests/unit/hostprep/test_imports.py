"""What a run with nothing to change must not wait for."""

from __future__ import annotations

import subprocess
import sys

HOT = """
import sys
import inferfleet.tasks.hostprep, inferfleet.run.run, inferfleet.parallel
import inferfleet.hostprep.ground, inferfleet.hostprep.show
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_way_to_an_answer_needs_no_library_for_files_or_tables() -> None:
    done = subprocess.run([sys.executable, "-c", HOT], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "inferfleet" in loaded
    assert not loaded & {"pydantic", "jinja2", "rich", "httpx", "huggingface_hub", "pynvml"}
