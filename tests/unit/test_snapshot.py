"""What is kept between runs: used while nothing changed, and never otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferfleet.cache import cache_folder, read_kept
from inferfleet.errors import FleetErrors
from inferfleet.load import load
from inferfleet.paths import Roots, find_roots
from inferfleet.run import snapshot
from inferfleet.run.brief import Brief, make_brief
from inferfleet.run.run import Run
from inferfleet.run.snapshot import Snapshot

MACHINE = "address: m1.example\nservices:\n  a: {kind: llama-cpp, model: /m.gguf, port: 8000}\n"


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A consumer's folder with one machine, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(snapshot, "SETTLED_NS", -(1 << 62))
    path = tmp_path / "fleet" / "inventory" / "m1.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(MACHINE)
    return tmp_path / "fleet"


def roots(overlay: Path) -> Roots:
    return find_roots(overlay)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "inferbase").glob("*/*"))


def brief(overlay: Path, name: str = "m1") -> Brief:
    return Snapshot(roots(overlay)).briefs([name])[name]


def port(overlay: Path, name: str = "m1") -> int:
    address = brief(overlay, name).draft.release.units["a"].address
    assert address is not None
    return address[1]


def without_loading(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> Brief:
    with monkeypatch.context() as patch:
        patch.setattr(load, "load_fleet", lambda _: pytest.fail("loaded again"))
        return brief(overlay)


def test_unchanged_files_are_not_loaded_again(
    overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = brief(overlay)
    again = without_loading(overlay, monkeypatch)
    assert again == first == make_brief(load.load_fleet(roots(overlay)), "m1")
    assert Snapshot(roots(overlay)).listing["m1"].services == ("a",)


def test_neither_pydantic_nor_jinja_is_needed_then(overlay: Path) -> None:
    brief(overlay)
    program = (
        "import sys; from inferfleet.paths import find_roots; import inferfleet.run.session\n"
        "from inferfleet.run.snapshot import Snapshot\n"
        "Snapshot(find_roots(sys.argv[1])).briefs(['m1'])\n"
        "print(sorted({'pydantic', 'jinja2', 'yaml', 'inferfleet.capacity'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(overlay)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_brief_is_made_when_it_is_asked_for(overlay: Path, tmp_path: Path) -> None:
    (overlay / "inventory" / "m2.yaml").write_text(MACHINE)
    brief(overlay)
    assert [path.name for path in kept(tmp_path)] == ["listing", "m1.brief"]
    brief(overlay, "m2")
    assert [path.name for path in kept(tmp_path)] == ["listing", "m1.brief", "m2.brief"]


@pytest.mark.parametrize("where", ["m1.yaml", "m2.yaml"])
def test_a_changed_or_new_file_is_seen(overlay: Path, where: str) -> None:
    brief(overlay)
    (overlay / "inventory" / where).write_text(MACHINE.replace("8000", "8001"))
    assert port(overlay, where.removesuffix(".yaml")) == 8001


def test_a_file_of_the_same_size_and_time_is_seen(overlay: Path) -> None:
    path = overlay / "inventory" / "m1.yaml"
    brief(overlay)
    before = path.stat()
    time.sleep(0.02)  # the kernel's clock for files ticks every few milliseconds
    path.write_text(MACHINE.replace("8000", "8002"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert port(overlay) == 8002


def test_a_changed_template_is_seen(overlay: Path) -> None:
    def control() -> bytes:
        return brief(overlay).draft.release.files["control"].content

    brief(overlay)
    own = overlay / "templates" / "control"
    own.mkdir(parents=True)
    (own / "control.j2").write_text("first\n")
    assert control() == b"first\n"


def test_mistakes_are_not_kept(overlay: Path, tmp_path: Path) -> None:
    (overlay / "inventory" / "m1.yaml").write_text(MACHINE + "prot: 1\n")
    for _ in range(2):
        with pytest.raises(FleetErrors, match="unknown key"):
            Snapshot(roots(overlay))
    assert kept(tmp_path) == []


def test_files_of_this_moment_are_not_kept(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SETTLED_NS", 3600 * 10**9)
    brief(overlay)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"x", b"\x80\x05", None])
def test_a_damaged_snapshot_is_replaced(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    first = brief(overlay)
    for path in kept(tmp_path):
        whole = path.read_bytes()
        path.write_bytes(whole[:-20] if damage is None else whole[:32] + damage)
    assert brief(overlay) == first
    assert without_loading(overlay, monkeypatch) == first


def test_what_others_may_write_is_not_read(overlay: Path, tmp_path: Path) -> None:
    brief(overlay)
    path, _ = kept(tmp_path)
    assert read_kept(path, path.read_bytes()[:32]) is not None
    path.chmod(0o666)
    assert read_kept(path, path.read_bytes()[:32]) is None
    path.parent.parent.chmod(0o777)
    assert cache_folder() is None


def test_no_secret_is_kept(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-5d1c")
    text = MACHINE.replace("port", "secrets: [KEY], port") + "secrets: {KEY: {env: CANARY_KEY}}\n"
    (overlay / "inventory" / "m1.yaml").write_text(text)
    run = Run(overlay, ["m1"])
    release = run.release("m1", run.secrets("m1"))
    assert b"canary-5d1c" in release.files["env/a.env"].content
    content = b"".join(path.read_bytes() for path in kept(tmp_path))
    assert b"CANARY_KEY" in content
    assert b"canary-5d1c" not in content
