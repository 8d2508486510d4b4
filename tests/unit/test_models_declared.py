"""Model files: read, laid over by a consumer, named by services; every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_files import error_lines, load_files

from inferfleet.models.need import Source
from inferfleet.models.needs import model_need, pinned
from inferfleet.services.resolve import resolve

TINY = "source: hf:org/tiny\n"
USES = "services:\n  s: {kind: engine, model: tiny}\n"
HEX = "ab" * 32
FILE = "inventory/models/tiny.yaml"
MACHINE = "inventory/m.yaml"


def test_a_service_names_a_declared_model(tmp_path: Path) -> None:
    loaded = load_files(
        tmp_path,
        {
            "inventory/m.yaml": (
                "services:\n"
                "  plain: {kind: engine, model: tiny, port: 1}\n"
                "  own: {kind: engine, model: tiny, served-name: own, port: 2}\n"
                "  talk: {kind: engine, model: {source: tiny, alias: team/chat}, port: 3}\n"
            ),
            "inventory/models/tiny.yaml": (
                "source: org/tiny\nrevision: v2\nfiles: ['*.json', m.bin]\nserved-name: smol\n"
                f"checksums: {{m.bin: {HEX}}}\n"
                "aliases:\n  team/chat: {system_prompt.txt: Be kind, model_info.json: '{}'}\n"
                "  team/other: {}\n"
            ),
        },
    )
    assert error_lines(loaded) == ""
    services = loaded.fleet.machines["m"].services
    needs = {
        name: model_need(name, service.model, None, "/models", loaded.fleet.models)
        for name, service in services.items()
    }
    plain, talk = needs["plain"], needs["talk"]
    assert plain is not None
    assert talk is not None
    assert plain.source == Source("hf", "org/tiny", "v2")
    assert (plain.declared, plain.title, plain.served_name) == ("tiny", "tiny", "smol")
    assert plain.files == ("*.json", "m.bin")
    assert plain.checksums == {"m.bin": HEX}
    assert not pinned(plain)  # a tag moves
    own = {"system_prompt.txt": "Be kind", "model_info.json": "{}"}
    assert plain.aliases == talk.aliases
    assert plain.aliases == {"/models/team/chat": own, "/models/team/other": {}}
    assert plain.path == plain.directory
    assert talk.path == "/models/team/chat"
    assert (plain.key, plain.directory) == (talk.key, talk.directory)
    machine = loaded.fleet.machines["m"]
    views = {name: resolve(loaded.fleet, machine, name, "/opt/x", "/models") for name in services}
    assert {name: view.served_name for name, view in views.items()} == {
        "plain": "smol", "own": "own", "talk": "smol",
    }  # fmt: skip


def test_a_consumer_changes_a_model_and_adds_one(tmp_path: Path) -> None:
    loaded = load_files(
        tmp_path,
        {
            "inventory/m.yaml": USES,
            "inventory/models/tiny.yaml": f"{TINY}revision: v1\naliases: {{a: {{}}, b: {{}}}}\n",
        },
        inventory__models__tiny="revision: v2\naliases: {a: null, c: {x.txt: y}}\n",
        inventory__models__mine="source: /mnt/mine\n",
    )
    assert error_lines(loaded) == ""
    tiny = loaded.fleet.models["tiny"]
    assert (tiny.revision, sorted(tiny.aliases)) == ("v2", ["b", "c"])
    assert loaded.fleet.models["mine"].source == "/mnt/mine"


MISTAKES = [
    (
        "sorce: hf:org/tiny\n",
        (
            f"{FILE}:1:1: sorce: unknown key\nhint: did you mean source?\n"
            f"{FILE}:1:1: source: is missing"
        ),
    ),
    (
        "source: hf:org\n",
        (
            f"{FILE}:1:9: source: model source 'hf:org' is not a repository of the "
            "hub\nhint: write hf:ORG/NAME, such as hf:Qwen/Qwen3-32B-FP8, "
            "@REVISION and /FILE if wanted"
        ),
    ),
    (
        "source: hf:org/tiny@v1\nrevision: v2\n",
        (
            f"{FILE}:2:11: revision: model hf:org/tiny@v1: revision is in source "
            "already\nhint: remove revision"
        ),
    ),
    (
        "source: https://h.example/x.gguf\nrevision: v2\n",
        (
            f"{FILE}:2:11: revision: model https://h.example/x.gguf: revision is "
            "for a repository of the hub (hf:ORG/NAME)\nhint: remove revision"
        ),
    ),
    (
        f"{TINY}sha256: {HEX}\n",
        (
            f"{FILE}:2:9: sha256: model hf:org/tiny: sha256 is for a source that "
            "is one fetched file\nhint: remove sha256"
        ),
    ),
    (
        f"source: hf:org/tiny/x.gguf\nchecksums: {{x.gguf: {HEX}}}\n",
        (
            f"{FILE}:2:12: checksums: model hf:org/tiny/x.gguf: checksums is for a "
            "repository of the hub or a directory (file:)\nhint: remove checksums"
        ),
    ),
    (
        f"{TINY}checksums: {{../x: {HEX}}}\n",
        (
            f"{FILE}:2:13: checksums.../x: the key is not a path below the "
            "model's directory\nhint: write it as model.safetensors or sub/model.safetensors"
        ),
    ),
    (
        f"{TINY}aliases: {{hf/x: {{}}}}\n",
        (
            f"{FILE}:2:10: aliases: model hf:org/tiny: alias 'hf/x' cannot be used\n"
            "hint: name a directory such as chat or team/language/chat"
        ),
    ),
    (
        f"{TINY}aliases: {{a: {{../x: y}}}}\n",
        (
            f"{FILE}:2:15: aliases.a.../x: the key is not a file name\n"
            "hint: use letters, digits, . _ -"
        ),
    ),
]


@pytest.mark.parametrize(("text", "error"), MISTAKES)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_mistake_in_a_model_file_is_told_once(
    text: str, error: str, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"inventory/models/tiny.yaml": text} | ({"inventory/m.yaml": USES} if used else {})
    assert error_lines(load_files(tmp_path, files)) == error


AT = f"{MACHINE}:2:28: services.s.model: "
SERVICES = [
    (
        "  s: {kind: engine, model: tniy}\n",
        f"{AT}there is no model tniy in inventory/models\nhint: did you mean tiny?",
    ),
    (
        "  s: {kind: engine, model: {source: tiny, alias: chta}}\n",
        (
            f"{MACHINE}:2:50: services.s.model.alias: model tiny has no alias chta\n"
            "hint: did you mean chat?"
        ),
    ),
    (
        f"  s: {{kind: engine, model: {{source: tiny, sha256: {HEX}}}}}\n",
        (
            f"{MACHINE}:2:51: services.s.model.sha256: model tiny: sha256 stands in "
            "inventory/models/tiny.yaml\nhint: remove sha256 here"
        ),
    ),
    (
        "  s: {kind: engine, model: {source: tiny, alias: chat, extra: {a: b}}}\n",
        (
            f"{MACHINE}:2:63: services.s.model.extra: model tiny: extra stands in "
            "inventory/models/tiny.yaml\nhint: remove extra here"
        ),
    ),
    (
        "  s: {kind: engine, model: {source: 'hf:org/x', extra: {a: b}}}\n",
        (
            f"{MACHINE}:2:56: services.s.model.extra: model hf:org/x: extra needs an alias, the "
            "directory these files stand in\nhint: remove extra"
        ),
    ),
    (
        (
            "  a: {kind: engine, port: 1, model: tiny}\n"
            "  s: {kind: engine, port: 2, model: {source: 'hf:org/x', alias: chat}}\n"
        ),
        (
            f"{MACHINE}:3:65: services.s.model: the alias chat is also claimed by a for another "
            "model (inventory/models/tiny.yaml:2:11)\nhint: give one of them another alias"
        ),
    ),
    (
        (
            "  a: {kind: engine, port: 1, model: {source: 'hf:org/x', alias: z, extra: {f: one}}}\n"
            "  s: {kind: engine, port: 2, model: {source: 'hf:org/x', alias: z, extra: {f: two}}}\n"
        ),
        (
            f"{MACHINE}:3:65: services.s.model: the alias z is also claimed by a with other "
            "files of its own (inventory/m.yaml:2:65)\nhint: give one of them another alias"
        ),
    ),
    (
        (
            "  a: {kind: engine, port: 1, model: {source: 'hf:org/x', alias: z}}\n"
            "  s: {kind: engine, port: 2, model: {source: 'hf:org/x', alias: z}}\n"
        ),
        "",
    ),
]


@pytest.mark.parametrize(("services", "error"), SERVICES)
def test_mistakes_of_services(
    services: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "inventory/models/tiny.yaml": f"{TINY}aliases: {{chat: {{}}}}\n",
        "inventory/m.yaml": f"services:\n{services}",
    }
    assert error_lines(load_files(tmp_path, files)) == error


def test_a_name_without_any_model_file_is_a_source_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_lines(load_files(tmp_path, {"inventory/m.yaml": USES})) == (
        f"{AT}there is no model tiny in inventory/models\nhint: write a source such as hf:ORG/NAME"
    )
