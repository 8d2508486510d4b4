"""llama-server's options in the embedded engine; serving itself is tested end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import render_cases

from inferfleet.engines import embedded, openmp

SCRIPT = embedded.__file__
NEEDED = ["--model", "m.gguf", "--port", "8080"]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", SCRIPT, *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environ},
    )


def llama() -> ModuleType:
    """The library, with what the system may lack."""
    openmp.provide()
    library: ModuleType = pytest.importorskip("xllamacpp")
    return library


def test_every_option_reaches_the_library() -> None:
    library = llama()
    words = [*NEEDED, "--host", "::1", "--alias", "tiny", "-c", "4096", "-np", "3", "-t", "2"]
    words += ["--temp", "0.5", "--no-warmup", "--metrics", "--flash-attn", "on", "-ngl", "all"]
    made = embedded.params(embedded.parser().parse_args(words), library)
    assert (made.model.path, made.port, made.hostnames) == ("m.gguf", 8080, ["::1"])
    assert made.model_alias == {"tiny"}
    assert (made.n_ctx, made.n_parallel, made.cpuparams.n_threads) == (4096, 3, 2)
    assert (made.sampling.temp, made.warmup, made.endpoint_metrics) == (0.5, False, True)
    assert made.flash_attn_type == library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert made.n_gpu_layers == -2


def test_tables_name_attributes_of_the_library() -> None:
    library = llama()
    params = library.CommonParams()
    for path in [*embedded.FLAGS.values(), *(path for path, _ in embedded.VALUES.values())]:
        target = params
        for name in path.split("."):
            target = getattr(target, name)
        assert isinstance(target, bool | int | float | str), path


def test_options_are_llama_servers() -> None:
    known = render_cases.fleet("laptop").kinds["llama-cpp"].options_known
    assert known is not None
    assert {*embedded.VALUES, *embedded.FLAGS, *embedded.SHORT} <= known


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = llama()
    (tmp_path / "keys").write_text("one\ntwo words\n\n")
    monkeypatch.setenv("LLAMA_API_KEY", "zero")
    words = [*NEEDED, "--api-key-file", str(tmp_path / "keys")]
    made = embedded.params(embedded.parser().parse_args(words), library)
    assert made.api_keys == ["zero", "one", "two words"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*NEEDED, "--lora", "x"], "embedded: unrecognized arguments: --lora x"),
        ([*NEEDED, "--ctx", "1"], "embedded: unrecognized arguments: --ctx 1"),
        (
            [*NEEDED, "--ctx-size", "much"],
            "embedded: argument --ctx-size/-c: invalid int value: 'much'",
        ),
        (["--port", "1"], "embedded: the following arguments are required: --model/-m"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr.strip()) == (64, message)


def test_missing_model(tmp_path: Path) -> None:
    llama()
    done = run("--model", str(tmp_path / "none.gguf"), "--port", "1")
    assert done.returncode == 64
    assert done.stderr == f"embedded: there is no model file {tmp_path}/none.gguf\n"


def test_missing_library(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('broken')\n")
    done = run(*NEEDED, PYTHONPATH=str(tmp_path))
    assert done.returncode == 64
    assert done.stderr.startswith("embedded: xllamacpp is not usable here (broken); install it")
    assert len(done.stderr.splitlines()) == 1
