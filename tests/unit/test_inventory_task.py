"""The tasks inventory.list, .show and .validate over an overlay, and --host all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

from inferfleet.paths import OVERLAY_VARIABLE
from inferfleet.tasks import ns

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Calls a task; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet/inventory").mkdir(parents=True)
    monkeypatch.setenv(OVERLAY_VARIABLE, str(tmp_path / "fleet"))

    def call(name: str, **options: object) -> tuple[int, str, str]:
        code = 0
        try:
            ns[name](Context(Config()), **options)
        except Exit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


def overlay(folder: Path, name: str, text: str) -> None:
    (folder / "fleet/inventory" / f"{name}.yaml").write_text(text)


def test_list_and_show_name_the_files(ask: Ask, tmp_path: Path) -> None:
    overlay(tmp_path, "local", "services: {smollm2: {port: 8091}}\n")
    overlay(tmp_path, "rtx5090", "null\n")
    overlay(tmp_path, "spark", "merge: false\naddress: box\n")
    rows = {row["machine"]: row for row in json.loads(ask("inventory.list", format="json")[1])}
    assert set(rows) == {"local", "spark"}
    ours, theirs = rows["local"]["files"]
    assert (ours[-20:], theirs) == ("inventory/local.yaml", "fleet/inventory/local.yaml")
    assert rows["spark"]["files"] == ["fleet/inventory/spark.yaml"]
    assert rows["spark"]["services"] == []

    code, out, err = ask("inventory.show", host=["all"], sources=True)
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    assert list(shown) == ["local", "spark"]
    assert shown["local"]["services"]["smollm2"]["port"] == 8091
    assert "      port: 8091  # fleet/inventory/local.yaml:1\n" in out
    assert f"local:  # {ours}, {theirs}\n" in out
    code, out, _ = ask("inventory.show", sources=True, format="json")
    places = json.loads(out)["local"]
    assert places["services.smollm2.port"] == "fleet/inventory/local.yaml:1"
    data = json.loads(ask("inventory.show", format="json")[1])
    assert data["local"]["services"]["smollm2"]["bind"] == "127.0.0.1"


def test_validate_for_programs(ask: Ask, tmp_path: Path) -> None:
    code, out, _ = ask("inventory.validate", format="json")
    assert (code, json.loads(out)["errors"]) == (0, [])
    overlay(tmp_path, "m", "adress: x\n")
    overlay(tmp_path, "local", "")
    code, out, err = ask("inventory.validate", format="json")
    assert (code, err) == (64, "")
    first, second = json.loads(out)["errors"]
    assert (first["where"], first["what"]) == ("fleet/inventory/local.yaml:1:1", "is empty")
    assert (second["what"], second["code"]) == ("adress: unknown key", 64)
    assert second["hint"].startswith("did you mean address?")
    assert ask("inventory.validate")[0] == 64


def test_render_says_how_many_secrets_it_writes(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay(tmp_path, "rtx5090", "null\n")
    overlay(tmp_path, "spark", "null\n")
    overlay(
        tmp_path,
        "web",
        "address: web\nsecrets: {WEBUI_SECRET_KEY: {env: CANARY}}\n"
        "services: {page: {kind: open-webui, secrets: [WEBUI_SECRET_KEY]}}\n",
    )
    monkeypatch.setenv("CANARY", "canary")
    out = tmp_path / "build"
    code, _, err = ask("render", out=str(out), host=["all"])
    assert code == 0, err
    assert "local: written to" in err
    assert f"web: written to {out}/web, 1 of its files with secrets\n" in err
    for name in ("local", "web"):
        assert (out / name).stat().st_mode & 0o777 == 0o700
        assert (out / name / ".gitignore").read_text() == "*\n"
