"""Machine file -> exact files. INFERBASE_UPDATE=1 writes the expected files anew; read the diff."""

from __future__ import annotations

import os
import shutil

import pytest
import render_cases
import yaml

from inferfleet.release.release import Release


def listing(release: Release) -> str:
    """Everything of a release that is not the content of a file."""
    return yaml.safe_dump(
        {
            "project": release.project,
            "root": release.root,
            "files": {
                path: f"{file.mode:o}{' secret' if file.secret else ''}"
                for path, file in release.files.items()
            },
            "links": dict(release.links),
            "units": [
                {
                    "service": unit.service,
                    "runtime": unit.runtime,
                    "name": unit.name,
                    "address": list(unit.address or ()),
                    "api": unit.api,
                    "model": unit.model,
                    "key": unit.probe.key if unit.probe else None,
                    "timeout": unit.probe.timeout if unit.probe else None,
                    "autostart": unit.autostart,
                    "gpu": unit.gpu,
                }
                for unit in release.units.values()
            ],
            "models": [need.path for need in release.models],
        },
        sort_keys=False,
    )


@pytest.mark.parametrize("case", render_cases.NAMES)
def test_files(case: str) -> None:
    release = render_cases.render_case(case)
    wanted = {path: file.content.decode() for path, file in release.files.items()}
    wanted["LISTING.yaml"] = listing(release)
    folder = render_cases.CASES / case / "expected"
    if os.environ.get("INFERBASE_UPDATE"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in wanted.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
    found = {
        str(path.relative_to(folder)): path.read_bytes().decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert found.keys() == wanted.keys()
    for path, text in wanted.items():
        assert found[path] == text, path


@pytest.mark.parametrize("case", render_cases.NAMES)
def test_same_input_same_release(case: str) -> None:
    assert render_cases.render_case(case).digest == render_cases.render_case(case).digest


def test_secrets_stand_in_secret_files_only() -> None:
    seen = 0
    for case in render_cases.NAMES:
        for path, file in render_cases.render_case(case).files.items():
            assert (b"canary-" in file.content) == file.secret, path
            assert file.mode == 0o600 or not file.secret, path
            seen += file.secret
    assert seen >= 4
