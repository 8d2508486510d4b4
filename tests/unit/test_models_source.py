"""Sources and needs: text to meaning, meaning to directories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import Source
from inferfleet.models.needs import model_need
from inferfleet.models.sources.source import check_member, parse_source, source_text
from inferfleet.schema.machine import ModelSpec

GOOD = [
    ("hf:Qwen/Qwen3-32B-FP8", None, Source("hf", "Qwen/Qwen3-32B-FP8")),
    ("Qwen/Qwen3-32B-FP8", "hf", Source("hf", "Qwen/Qwen3-32B-FP8")),
    ("hf:org/name@v1.0/sub/x.gguf", None, Source("hf", "org/name", "v1.0", "sub/x.gguf")),
    ("org/name/x.gguf", "hf", Source("hf", "org/name", "", "x.gguf")),
    (
        "https://host.example/a/b.gguf?x=1",
        None,
        Source("https", "https://host.example/a/b.gguf?x=1"),
    ),
    ("http://127.0.0.1:8/b.gguf", None, Source("https", "http://127.0.0.1:8/b.gguf")),
    ("file:/models//a b.gguf", None, Source("file", "/models/a b.gguf")),
    ("file:/models/dir/", None, Source("file", "/models/dir/")),
    ("pypi:llm-x==0.1.2/llm_x/m.gguf", None, Source("pypi", "llm-x", "0.1.2", "llm_x/m.gguf")),
    ("ollama:qwen3:32b-q8_0", None, Source("ollama", "qwen3:32b-q8_0")),
    ("qwen3:32b-q8_0", "ollama", Source("ollama", "qwen3:32b-q8_0")),
    ("hf.co/org/Name-GGUF:Q4_K_M", "ollama", Source("ollama", "hf.co/org/Name-GGUF:Q4_K_M")),
    ("/mnt/models/llama/", "hf", Source("path", "/mnt/models/llama")),
]

BAD = [
    ("hf:gpt2", None),
    ("hf:org/a--b", None),
    ("hf:org/name/../x", None),
    ("hf:org/name//x", None),
    ("Qwen/Qwen3", None),
    ("ftp://x/y", "hf"),
    ("http://host.example/x.gguf", None),
    ("https://user:canary@host.example/x.gguf", None),
    ("https://host.example/", None),
    ("https://host.example/a b", None),
    ("file:relative", None),
    ("file:/a/../b", None),
    ("pypi:name/member", None),
    ("pypi:name==1.0", None),
    ("pypi:name==1.0/../x", None),
    ("pypi:-r==1/x", None),
    ("ollama:", None),
    ("ollama:a b", None),
    ("x\ny", "hf"),
    ("/a/../b", None),
    ("", "hf"),
]


@pytest.mark.parametrize(("text", "default", "source"), GOOD, ids=[g[0] for g in GOOD])
def test_good_sources(text: str, default: str | None, source: Source) -> None:
    assert parse_source(text, default) == source
    assert parse_source(source_text(source), None) == source


@pytest.mark.parametrize(("text", "default"), BAD, ids=[repr(b[0]) for b in BAD])
def test_bad_sources_say_what_is_allowed(text: str, default: str | None) -> None:
    with pytest.raises(FleetError) as caught:
        parse_source(text, default)
    assert caught.value.code == USAGE
    assert caught.value.hint
    assert "canary" not in str(caught.value)


@given(st.text(max_size=40))
def test_a_checked_member_stays_inside(path: str) -> None:
    try:
        check_member(path)
    except ValueError:
        return
    parts = path.split("/")
    assert parts
    assert all(part not in ("", ".", "..") for part in parts)
    assert not path.startswith("/")
    assert "\n" not in path


def need_of(spec: str | ModelSpec, default: str | None = "hf"):
    need = model_need("chat", spec, default, "/m/")
    assert need is not None
    return need


def test_layout() -> None:
    assert model_need("chat", None, "hf", "/m") is None
    whole = need_of("org/name")
    assert (whole.directory, whole.path) == ("/m/hf/org--name/main", "/m/hf/org--name/main")
    file = need_of("org/name@v2/q/x.gguf")
    assert file.directory.startswith("/m/hf/org--name/v2+")
    assert file.path == f"{file.directory}/q/x.gguf"
    wheel = need_of("pypi:Llm_X==1.0/llm_x/m.gguf")
    assert wheel.directory.startswith("/m/pypi/llm-x/1.0+")
    assert wheel.path == f"{wheel.directory}/m.gguf"
    web = need_of("https://h.example:8443/a/m.gguf")
    assert web.directory.startswith("/m/https/h.example-8443/m.gguf+")
    ollama = need_of("ollama:qwen3")
    assert (ollama.directory, ollama.path) == ("", "qwen3")
    there = need_of("/mnt/x.gguf")
    assert (there.directory, there.path) == ("", "/mnt/x.gguf")


def test_different_models_never_share_a_directory_or_a_key() -> None:
    specs: list[str | ModelSpec] = [
        "org/name",
        "org/name@main2",
        "org/name/x.gguf",
        "org/name/y.gguf",
        ModelSpec(source="org/name", files=["*.json"]),
        ModelSpec(source="org/name", files=["*.json", "*.bin"]),
        "https://h.example/a/m.gguf",
        "https://h.example/b/m.gguf",
        "https://h.example/b/m.gguf?v=2",
        "file:/a/m.gguf",
        "file:/b/m.gguf",
        "pypi:a-1==2/m.gguf",
        "pypi:a==1-2/m.gguf",
        "pypi:a==2/n/m.gguf",
    ]
    needs = [need_of(spec) for spec in specs]
    assert len({need.directory for need in needs}) == len(specs)
    assert len({need.key for need in needs}) == len(specs)
    assert all("/" not in need.key and not need.key.startswith(".") for need in needs)


def test_alias_is_what_is_loaded() -> None:
    one = need_of(ModelSpec(source="org/name", alias="team/chat", extra={"a.txt": "x"}))
    assert (one.path, one.aliases) == ("/m/team/chat", {"/m/team/chat": {"a.txt": "x"}})
    file = need_of(ModelSpec(source="org/name/q/x.gguf", alias="chat"))
    assert file.path == "/m/chat/q/x.gguf"
    there = need_of(ModelSpec(source="/mnt/llama", alias="chat"))
    assert there.path == "/m/chat"
    single = need_of(ModelSpec(source="/mnt/llama/x.gguf", alias="chat"))
    assert single.path == "/m/chat/x.gguf"


@pytest.mark.parametrize(
    "spec",
    [
        {"source": "org/name", "alias": "a/../b"},
        {"source": "org/name", "alias": "hf/x"},
        {"source": "org/name", "alias": "a/.inferbase"},
        {"source": "org/name", "extra": {"x": "y"}},
        {"source": "org/name", "sha256": "0" * 64},
        {"source": "/mnt/x.gguf", "sha256": "0" * 64},
        {"source": "org/name/x.gguf", "files": ["*"]},
        {"source": "https://h.example/x", "files": ["*"]},
        {"source": "ollama:qwen3", "alias": "x"},
    ],
)
def test_contradictory_specs(spec: dict[str, object]) -> None:
    with pytest.raises(FleetError) as caught:
        need_of(ModelSpec.model_construct(None, **spec))
    assert caught.value.code == USAGE
    assert caught.value.hint
