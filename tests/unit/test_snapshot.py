"""The fleet kept between runs: used while nothing changed, and never otherwise."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferfleet import load, snapshot
from inferfleet.errors import FleetErrors
from inferfleet.paths import Roots, find_roots
from inferfleet.schema.fleet import Fleet

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
    return sorted((tmp_path / "cache" / "inferbase").glob("*.fleet"))


def without_loading(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    with monkeypatch.context() as patch:
        patch.setattr(load, "load_fleet", lambda _: pytest.fail("loaded again"))
        return snapshot.fleet_of(roots(overlay))


def test_unchanged_files_are_not_loaded_again(
    overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = snapshot.fleet_of(roots(overlay))
    again = without_loading(overlay, monkeypatch)
    assert again == first == load.load_fleet(roots(overlay))
    assert again.machines["m1"].services["a"].port == 8000


@pytest.mark.parametrize("where", ["m1.yaml", "m2.yaml"])
def test_a_changed_or_new_file_is_seen(overlay: Path, where: str) -> None:
    snapshot.fleet_of(roots(overlay))
    (overlay / "inventory" / where).write_text(MACHINE.replace("8000", "8001"))
    fleet = snapshot.fleet_of(roots(overlay))
    assert fleet.machines[where.removesuffix(".yaml")].services["a"].port == 8001


def test_a_file_of_the_same_size_and_time_is_seen(overlay: Path) -> None:
    path = overlay / "inventory" / "m1.yaml"
    snapshot.fleet_of(roots(overlay))
    before = path.stat()
    time.sleep(0.02)  # the kernel's clock for files ticks every few milliseconds
    path.write_text(MACHINE.replace("8000", "8002"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert snapshot.fleet_of(roots(overlay)).machines["m1"].services["a"].port == 8002


def test_a_new_folder_of_templates_is_seen(overlay: Path) -> None:
    snapshot.fleet_of(roots(overlay))
    (overlay / "templates").mkdir()
    assert snapshot.fleet_of(roots(overlay)).template_dirs[0] == overlay / "templates"


def test_mistakes_are_not_kept(overlay: Path, tmp_path: Path) -> None:
    (overlay / "inventory" / "m1.yaml").write_text(MACHINE + "prot: 1\n")
    for _ in range(2):
        with pytest.raises(FleetErrors, match="unknown key"):
            snapshot.fleet_of(roots(overlay))
    assert kept(tmp_path) == []


def test_files_of_this_moment_are_not_kept(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SETTLED_NS", 3600 * 10**9)
    snapshot.fleet_of(roots(overlay))
    assert kept(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"x", b"\x80\x05", None])
def test_a_damaged_snapshot_is_replaced(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    first = snapshot.fleet_of(roots(overlay))
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] if damage is None else whole[:32] + damage)
    assert snapshot.fleet_of(roots(overlay)) == first
    assert without_loading(overlay, monkeypatch) == first


def test_what_others_may_write_is_not_read(overlay: Path, tmp_path: Path) -> None:
    snapshot.fleet_of(roots(overlay))
    (path,) = kept(tmp_path)
    path.chmod(0o666)
    assert snapshot._read(path, path.read_bytes()[:32]) is None
    path.parent.chmod(0o777)
    assert snapshot.cache_folder() is None


def test_no_secret_is_kept(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-5d1c")
    text = MACHINE + "secrets: {LLAMA_API_KEY: {env: CANARY_KEY}}\n"
    (overlay / "inventory" / "m1.yaml").write_text(text)
    snapshot.fleet_of(roots(overlay))
    (path,) = kept(tmp_path)
    assert b"CANARY_KEY" in path.read_bytes()
    assert b"canary-5d1c" not in path.read_bytes()
