"""Files to fleet: every mistake with its place, overlays, and whole folders of mistakes."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from fleet_files import CASES, error_lines, load_files
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.errors import FleetErrors
from inferfleet.load.load import load, load_fleet
from inferfleet.load.overlay import merge
from inferfleet.load.yaml12 import read
from inferfleet.paths import FOLDERS, PACKAGE, Roots
from inferfleet.schema.nodes import Node

S = "services:\n  s:\n    kind: engine\n    model: /m\n"
VALUE = " - { } ' \" % $ ` \\ # !"

# (what is wrong, what the file says instead, the exact error)
MISTAKES = [
    (
        "adress: x\n",
        "address: x\n",
        "inventory/m.yaml:1:1: adress: unknown key\nhint: did you mean address?",
    ),
    (
        "network: {nam: x}\n",
        "network: {name: x}\n",
        (
            "inventory/m.yaml:1:1: network.name: is missing\n"
            "inventory/m.yaml:1:11: network.nam: unknown key\nhint: did you mean name?"
        ),
    ),
    (
        "hostprep: {gpu: {compute-mod: default}}\n",
        "hostprep: {gpu: {compute-mode: default}}\n",
        (
            "inventory/m.yaml:1:18: hostprep.gpu.compute-mod: unknown key\n"
            "hint: did you mean compute-mode?"
        ),
    ),
    (
        f"{S}    volumes: [{{source: /a, target: /b, ro: true}}]\n",
        f"{S}    volumes: [{{source: /a, target: /b, read-only: true}}]\n",
        (
            "inventory/m.yaml:5:40: services.s.volumes[0].ro: unknown key\n"
            "hint: valid keys: read-only, source, target"
        ),
    ),
    (
        f"{S}    start_timeout: 3m\n",
        f"{S}    start-timeout: 3m\n",
        (
            "inventory/m.yaml:5:5: services.s.start_timeout: unknown key\n"
            "hint: did you mean start-timeout?"
        ),
    ),
    (
        f"{S}    port: 70000\n",
        f"{S}    port: 65535\n",
        "inventory/m.yaml:5:11: services.s.port: 70000 is above 65535",
    ),
    (
        f"{S}    port: 0\n",
        f"{S}    port: 1\n",
        "inventory/m.yaml:5:11: services.s.port: 0 is below 1",
    ),
    (
        f"{S}    port: 8_080\n",
        f"{S}    port: 8080\n",
        'inventory/m.yaml:5:11: services.s.port: should be a whole number, found text "8_080"',
    ),
    (
        f"{S}    port: 80.5\n",
        f"{S}    port: 80\n",
        "inventory/m.yaml:5:11: services.s.port: should be a whole number, found a number 80.5",
    ),
    (
        f"{S}    cpus: 0\n",
        f"{S}    cpus: 0.5\n",
        "inventory/m.yaml:5:11: services.s.cpus: 0 is not above 0",
    ),
    (
        "sudo: no\n",
        "sudo: false\n",
        (
            'inventory/m.yaml:1:7: sudo: should be true or false, found text "no"\n'
            "hint: write true or false"
        ),
    ),
    (
        "summary: 2026\n",
        "summary: '2026'\n",
        (
            "inventory/m.yaml:1:10: summary: should be text, found a whole number 2026\n"
            "hint: put it in quotes"
        ),
    ),
    (
        "groups: gpu\n",
        "groups: [gpu]\n",
        'inventory/m.yaml:1:9: groups: should be a list, found text "gpu"\nhint: write [gpu]',
    ),
    (
        "services: [s]\n",
        "services: {}\n",
        "inventory/m.yaml:1:11: services: should be keys with values, found a list",
    ),
    (
        "services:\n",
        "services: {}\n",
        "inventory/m.yaml:1:1: services: should be keys with values, found nothing",
    ),
    (
        "runtime: docker\n",
        "runtime: compose\n",
        (
            'inventory/m.yaml:1:10: runtime: "docker" is none of compose, systemd, process\n'
            "hint: did you mean compose?"
        ),
    ),
    (
        "runtime: composed\n",
        "runtime: compose\n",
        (
            'inventory/m.yaml:1:10: runtime: "composed" is none of compose, systemd, process\n'
            "hint: did you mean compose?"
        ),
    ),
    (
        "services:\n  s: {model: /m}\n",
        "services:\n  s: {kind: engine, model: /m}\n",
        "inventory/m.yaml:2:3: services.s.kind: is missing",
    ),
    (
        "services:\n  S_1: {kind: engine, model: /m}\n",
        "services:\n  s_1: {kind: engine, model: /m}\n",
        (
            "inventory/m.yaml:2:3: services.S_1: the key is not a name\n"
            "hint: use a-z, 0-9, - and _, beginning with a letter or digit"
        ),
    ),
    (
        "services:\n  ../s: {kind: engine, model: /m}\n",
        "services:\n  s: {kind: engine, model: /m}\n",
        (
            "inventory/m.yaml:2:3: services.../s: the key is not a name\n"
            "hint: use a-z, 0-9, - and _, beginning with a letter or digit"
        ),
    ),
    (
        f"{S}    memory: 96Q\n",
        f"{S}    memory: 16G\n",
        (
            'inventory/m.yaml:5:13: services.s.memory: "96Q" is not a size\n'
            "hint: write a number with K, M, G or T, such as 96G"
        ),
    ),
    (
        f"{S}    start-timeout: 15\u0660m\n",
        f"{S}    start-timeout: 15m\n",
        (
            'inventory/m.yaml:5:20: services.s.start-timeout: "15\u0660m" is not a duration\n'
            "hint: write a number with s, m or h, such as 15m"
        ),
    ),
    (
        f"{S}    cpuset: 3-1\n",
        f"{S}    cpuset: 1-3\n",
        'inventory/m.yaml:5:13: services.s.cpuset: "3-1" is not a CPU list\nhint: 3-1 counts down',
    ),
    (
        f"{S}    cpuset: 0-9999\n",
        f"{S}    cpuset: 0-99\n",
        (
            'inventory/m.yaml:5:13: services.s.cpuset: "0-9999" is not a CPU list\n'
            "hint: CPUs are numbered below 8192"
        ),
    ),
    (
        f'{S}    cpuset: "0-1\\n"\n',
        f'{S}    cpuset: "0-1"\n',
        (
            'inventory/m.yaml:5:13: services.s.cpuset: "0-1\\n" is not a CPU list\n'
            "hint: write it as 0-11 or 0-3,8"
        ),
    ),
    (
        f"{S}    gpus: 1\n",
        f"{S}    gpus: [1]\n",
        (
            "inventory/m.yaml:5:11: services.s.gpus: should be all, none or a list, "
            "found a whole number 1\nhint: write [1]"
        ),
    ),
    (
        f"{S}    gpus: [-1]\n",
        f"{S}    gpus: [0]\n",
        "inventory/m.yaml:5:12: services.s.gpus[0]: -1 is below 0",
    ),
    (
        f"{S}    options: {{threads: [[1]]}}\n",
        f"{S}    options: {{threads: [1]}}\n",
        (
            "inventory/m.yaml:5:25: services.s.options.threads[0]: should be true or false, "
            "a whole number, a number or text, found a list"
        ),
    ),
    (
        f"{S}    options: {{--threads: 1}}\n",
        f"{S}    options: {{threads: 1}}\n",
        (
            "inventory/m.yaml:5:15: services.s.options.--threads: the key is not an option's name\n"
            "hint: write it without leading dashes"
        ),
    ),
    (
        "services:\n  s: {kind: engine, model: [/m]}\n",
        "services:\n  s: {kind: engine, model: /m}\n",
        "inventory/m.yaml:2:28: services.s.model: should be text or keys with values, found a list",
    ),
    (
        "services:\n  s: {kind: engine, model: {source: file:/m, sha256: abc}}\n",
        f"services:\n  s: {{kind: engine, model: {{source: file:/m, sha256: {'ab' * 32}}}}}\n",
        (
            'inventory/m.yaml:2:54: services.s.model.sha256: "abc" is not a SHA-256\n'
            "hint: write 64 digits 0-9 a-f"
        ),
    ),
    (
        "services:\n  s: {kind: engine, model: {source: /m, alias: a/../b}}\n",
        "services:\n  s: {kind: engine, model: {source: /m, alias: a/b}}\n",
        (
            'inventory/m.yaml:2:48: services.s.model.alias: "a/../b" is not a relative directory\n'
            "hint: write it as team/model"
        ),
    ),
    (
        f"{S}    volumes: [{{source: ./x, target: /x}}]\n",
        f"{S}    volumes: [{{source: x, target: /x}}]\n",
        (
            'inventory/m.yaml:5:24: services.s.volumes[0].source: "./x" is neither an absolute '
            "path nor a volume name\n"
            "hint: a relative path would mean another directory for each user"
        ),
    ),
    (
        "root: /opt/../etc\n",
        "root: /opt/etc\n",
        (
            'inventory/m.yaml:1:7: root: "/opt/../etc" is not an absolute path\n'
            "hint: write it in full, without '..'"
        ),
    ),
    (
        'root: "/opt\\nx"\n',
        'root: "/opt x"\n',
        (
            'inventory/m.yaml:1:7: root: "/opt\\nx" is not an absolute path\n'
            "hint: write it in full, without '..'"
        ),
    ),
    (
        "bind: localhost\n",
        "bind: 127.0.0.1\n",
        (
            'inventory/m.yaml:1:7: bind: "localhost" is not an IP address\n'
            "hint: write one such as 127.0.0.1"
        ),
    ),
    (
        "bind: fe80::1%eth0\n",
        "bind: fe80::1\n",
        (
            'inventory/m.yaml:1:7: bind: "fe80::1%eth0" is not an IP address\n'
            "hint: write one such as 127.0.0.1"
        ),
    ),
    (
        "network: {name: n, subnet: 172.20.0.1/16}\n",
        "network: {name: n, subnet: 172.20.0.0/16}\n",
        (
            'inventory/m.yaml:1:28: network.subnet: "172.20.0.1/16" is not a subnet\n'
            "hint: write its first address and prefix, such as 172.20.0.0/16"
        ),
    ),
    (
        "address: -oProxyCommand=x\n",
        "address: oProxyCommand=x\n",
        (
            'inventory/m.yaml:1:10: address: "-oProxyCommand=x" is not one word\n'
            "hint: no spaces, no '-' in front"
        ),
    ),
    (
        "secrets: {K: {}}\n",
        "secrets: {K: {env: K}}\n",
        "inventory/m.yaml:1:14: secrets.K: needs exactly one of env, file, command",
    ),
    (
        "secrets: {K: {env: K, file: /k}}\n",
        "secrets: {K: {file: /k}}\n",
        "inventory/m.yaml:1:14: secrets.K: needs exactly one of env, file, command",
    ),
    (
        "secrets: {1K: {env: K}}\n",
        "secrets: {K1: {env: K}}\n",
        (
            "inventory/m.yaml:1:11: secrets.1K: the key is not a variable name\n"
            "hint: use letters, digits and _"
        ),
    ),
]


@pytest.mark.parametrize(("wrong", "right", "error"), MISTAKES)
def test_each_mistake_and_its_clean_twin(
    wrong: str, right: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_lines(load_files(tmp_path, {"inventory/m.yaml": wrong})) == error
    clean = load_files(tmp_path, {"inventory/m.yaml": right})
    assert error_lines(clean) == ""
    assert "m" in clean.fleet.machines


def test_a_number_as_key_is_one_mistake_and_what_is_below_it_is_looked_at(tmp_path: Path) -> None:
    """Left out as a whole it would leave `versions` empty, which is another mistake."""
    kind = (
        "summary: x\napi: http\ndefault-port: 9300\ncompose:\n  image: x:1\n  port: 1\n"
        "  user: '1:1'\n  repository: /r\n  healthcheck: {test: [CMD, 'true']}\n"
    )
    machine = (
        "services:\n  t:\n    kind: repo\n    repository:\n"
        "      m: {versions: {1: /a}}\n      n: {versions: {2: nowhere}}\n"
    )
    files = {"services/repo.yaml": kind, "inventory/m.yaml": machine}
    told = error_lines(load_files(tmp_path, files)).replace(f"{tmp_path}/", "")
    at = "inventory/m.yaml:6:25: services.t.repository.n.versions.2"
    assert told.splitlines() == [
        "inventory/m.yaml:5:22: a key should be text, found a whole number",
        "hint: put it in quotes",
        "inventory/m.yaml:6:22: a key should be text, found a whole number",
        "hint: put it in quotes",
        f'{at}: "nowhere" is not an absolute path',
        "hint: write it in full, without '..'",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "secrets: {K: canary-value}\n",
        "secrets: {K: {env: canary-value}}\n",
        "secrets: {K: {env: [canary-value]}}\n",
        "secrets: {K: {value: canary-value}}\n",
        "services: {s: {kind: engine, model: /m, env: {K: [canary-value]}}}\n",
    ],
)
def test_what_may_be_a_secret_is_never_repeated(text: str, tmp_path: Path) -> None:
    lines = error_lines(load_files(tmp_path, {"inventory/m.yaml": text}))
    assert "inventory/m.yaml:1:" in lines
    assert "canary" not in lines


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("inventory/M.yaml", "", "'M' cannot be a name"),
        ("inventory/a b.yaml", "", "'a b' cannot be a name"),
        ("inventory/m.yml", "", "is not read\nhint: rename it to m.yaml"),
        ("inventory/m.yaml", "- a\n", "should hold keys with values, found a list"),
        ("inventory/m.yaml", b"\xff", "is not UTF-8 text"),
        ("inventory/hardware/h.yaml", "memory: 1G\n", "summary: is missing"),
        ("services/s.yaml", "a: b: c\n", "is not valid YAML: mapping values are not allowed"),
    ],
)
def test_files_that_are_no_fleet_files(
    name: str, content: str | bytes, error: str, tmp_path: Path
) -> None:
    (found,) = load_files(tmp_path, {name: content}).errors
    assert found.where is not None
    assert Path(found.where.file) == tmp_path / name
    assert str(found).startswith(f"{found.where}: {error}")


def test_other_files_in_the_folders_do_not_matter(tmp_path: Path) -> None:
    files = {"inventory/README.md": "x", "inventory/.m.yaml": "a: b: c", "inventory/x/y.yaml": "["}
    loaded = load_files(tmp_path, files)
    assert loaded.errors == []
    assert loaded.fleet.machines == {}


def test_a_file_that_is_no_regular_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "m.yaml").symlink_to(tmp_path / "nowhere")
    (error,) = load_files(tmp_path, {}).errors
    assert error.what == "cannot be read: not a regular file"


def test_a_broken_file_is_not_reported_again_by_those_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    machine = {"inventory/m.yaml": "hardware: box\nservices: {s: {kind: engine, model: /m}}\n"}
    broken = {"services/engine.yaml": "x: [\n", "inventory/hardware/box.yaml": "summary: 1\n"}
    lines = error_lines(load_files(tmp_path, {**machine, **broken}))
    assert [line.split(":")[0] for line in lines.splitlines() if not line.startswith("hint")] == [
        "inventory/hardware/box.yaml",
        "services/engine.yaml",
    ]


def test_load_fleet_raises_everything_at_once(tmp_path: Path) -> None:
    load_files(tmp_path, {"inventory/a.yaml": "x: 1\n", "inventory/b.yaml": "y: 1\nz: [\n"})
    with pytest.raises(FleetErrors) as caught:
        load_fleet(Roots(tmp_path))
    assert len(caught.value.errors) == 2
    assert caught.value.code == 64


@pytest.mark.parametrize("case", sorted(path.parent.name for path in CASES.glob("*/errors.txt")))
def test_folders(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / case)
    overlay = CASES / case / "fleet"
    loaded = load(Roots(CASES / case, overlay if overlay.is_dir() else None))
    assert error_lines(loaded) + "\n" == (CASES / case / "errors.txt").read_text()


def test_the_shipped_files_are_clean() -> None:
    loaded = load(Roots(PACKAGE.parent))
    assert error_lines(loaded) == ""
    assert {"local", "spark", "rtx5090"} <= set(loaded.fleet.machines)
    assert set(loaded.fleet.hardware) == {"cpu", "dgx-spark", "rtx-5090", "h100-nvl", "tesla-t4"}


BASE = """\
address: a
groups: [one, two]
services:
  s:
    kind: engine
    model: /m
    port: 9001
    options: {threads: 4}
"""


def test_an_overlay_changes_adds_and_removes(tmp_path: Path) -> None:
    over = (
        "groups: [three]\n"
        "services:\n"
        "  s: {port: null, options: {context-size: 8}}\n"
        "  t: {kind: tool, program: /t, runtime: process}\n"
    )
    loaded = load_files(
        tmp_path,
        {"inventory/m.yaml": BASE, "fleet/templates/x": ""},
        inventory__m=over,
        inventory__n="address: n\n",
        services__tool="default-port: 9200\n",
    )
    assert error_lines(loaded) == ""
    machine = loaded.fleet.machines["m"]
    assert machine.address == "a"
    assert machine.groups == ["three"]
    assert machine.services["s"].port is None
    assert machine.services["s"].options == {"threads": 4, "context-size": 8}
    assert list(machine.services) == ["s", "t"]
    assert loaded.fleet.machines["n"].address == "n"
    assert loaded.fleet.kinds["tool"].default_port == 9200
    assert loaded.fleet.kinds["tool"].summary.startswith("a program")
    assert loaded.fleet.template_dirs == (tmp_path / "fleet" / "templates",)


def test_an_error_in_a_merged_file_names_the_file_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = BASE.replace("9001", "99999")
    loaded = load_files(
        tmp_path, {"inventory/m.yaml": wrong}, inventory__m="services:\n  s: {memory: 1X}\n"
    )
    assert error_lines(loaded).splitlines()[0:2] == [
        'fleet/inventory/m.yaml:2:15: services.s.memory: "1X" is not a size',
        (
            "hint: write a number with K, M, G or T, such as 96G; m is fleet/inventory/m.yaml "
            "laid over inventory/m.yaml; `merge: false` starts anew"
        ),
    ]
    assert "inventory/m.yaml:7:11: services.s.port: 99999 is above 65535" in error_lines(loaded)


def test_a_broken_overlay_is_not_validated_on_its_own(tmp_path: Path) -> None:
    for base, over in ((BASE, "x: [\n"), ("x: [\n", "groups: [g]\n")):
        loaded = load_files(tmp_path, {"inventory/m.yaml": base}, inventory__m=over)
        assert len(loaded.errors) == 1
        assert "m" not in loaded.fleet.machines


KEYS = st.sampled_from("abc")
TREES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=3)


def node(data: Any, file: str) -> Node:
    if isinstance(data, dict):
        return Node({key: node(value, file) for key, value in data.items()}, file, (1, 1))
    if isinstance(data, list):
        return Node([node(value, file) for value in data], file, (1, 1))
    return Node(data, file, (1, 1))


def laid(base: Any, over: Any) -> Any:
    """The overlay rule on plain data, written a second time."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return copy.deepcopy(over)
    kept = {key: value for key, value in base.items() if key not in over}
    both = {key: laid(base[key], over[key]) for key in base if over.get(key) is not None}
    return kept | both | {key: value for key, value in over.items() if key not in base}


@settings(deadline=None)
@given(MAPPINGS, MAPPINGS)
def test_merging(base: dict[str, Any], over: dict[str, Any]) -> None:
    lower, upper = node(base, "base"), node(over, "over")
    merged = merge(lower, upper)
    assert merged.plain() == laid(base, over)
    assert (lower.plain(), upper.plain()) == (base, over)
    for path, file in leaves(merged, ()):
        assert file == ("over" if upper.at(path) is not None else "base")


@settings(deadline=None)
@given(MAPPINGS)
def test_merging_nothing_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(node(base, "base"), node({}, "over")).plain() == base
    assert merge(node({}, "base"), node(base, "over")).plain() == base


def leaves(tree: Node, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    if not isinstance(tree.value, dict):
        return [(path, tree.file)]
    return [leaf for key, item in tree.value.items() for leaf in leaves(item, (*path, key))]


def test_every_value_of_a_machine_file_reaches_the_model_as_written(tmp_path: Path) -> None:
    text = read(f"summary: '{VALUE.replace(chr(39), chr(39) * 2)}'\n".encode(), "f")
    assert text.root is not None
    loaded = load_files(
        tmp_path,
        {
            "inventory/m.yaml": f"summary: '{VALUE.replace(chr(39), chr(39) * 2)}'\n{S}"
            "    env: {A: no, B: '1', C: 0600, D: 22:22, E: 1, F: true}\n"
        },
    )
    machine = loaded.fleet.machines["m"]
    assert machine.summary == VALUE
    assert machine.services["s"].env == {
        "A": "no",
        "B": "1",
        "C": "0600",
        "D": "22:22",
        "E": 1,
        "F": True,
    }


@pytest.mark.parametrize(
    "readme", ["inventory/README.md", "inventory/hardware/README.md", "hostprep/README.md"]
)
def test_the_examples_of_the_readmes_load(readme: str, tmp_path: Path) -> None:
    lines = (PACKAGE.parent / readme).read_text().splitlines()
    example = [line[4:] for line in lines if line.startswith("    ")]
    name = example[0].removeprefix("# ")
    for folder in FOLDERS:
        shutil.copytree(PACKAGE.parent / folder, tmp_path / folder)
    assert not (tmp_path / name).exists()
    (tmp_path / name).write_text("\n".join(example))
    loaded = load(Roots(tmp_path))
    assert error_lines(loaded) == ""
    fleet = loaded.fleet
    assert Path(name).stem in {*fleet.machines, *fleet.hardware, *fleet.profiles}


OURS = {"inventory/m.yaml": BASE, "inventory/o.yaml": BASE.replace("9001", "9002")}


def test_a_file_may_start_anew_and_null_removes_ours(tmp_path: Path) -> None:
    alone = "merge: false\naddress: z\nservices:\n  z: {kind: engine, model: /z}\n"
    loaded = load_files(
        tmp_path, OURS, inventory__m=alone, inventory__o="null # not on our network\n"
    )
    assert error_lines(loaded) == ""
    machines = loaded.fleet.machines
    assert (list(machines), list(machines["m"].services)) == (["m"], ["z"])
    assert [len(files) for files in loaded.fleet.sources.values()] == [1]
    # Of any other kind of file as well; what names it then says so.
    loaded = load_files(tmp_path, OURS, services__engine="~\n")
    assert "services.z.kind: there is no service kind engine" in error_lines(loaded)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\n\n"])
def test_an_empty_file_is_a_mistake(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = error_lines(load_files(tmp_path, OURS, inventory__m=text))
    assert told == (
        "fleet/inventory/m.yaml:1:1: is empty\n"
        "hint: write keys, or `null` to remove our file of the same name, or delete it"
    )


def test_null_that_removes_nothing_and_a_machine_called_all_are_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = error_lines(load_files(tmp_path, OURS, inventory__p="null\n", inventory__all="{}\n"))
    assert told == (
        "fleet/inventory/all.yaml: no machine can be called all\n"
        "hint: `--host all` means every machine\n"
        "fleet/inventory/p.yaml: removes nothing: no other file has this name\n"
        "hint: delete it"
    )
    assert "merge: should be true or false" in error_lines(
        load_files(tmp_path / "x", OURS, inventory__m="merge: no\n")
    )


def test_an_error_about_a_merged_machine_names_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clash = "services:\n  z: {kind: engine, model: /z, port: 9001}\n"
    told = error_lines(load_files(tmp_path, OURS, inventory__m=clash))
    assert told.startswith("fleet/inventory/m.yaml:2:38: services.z.port: ")
    assert told.endswith(
        "m is fleet/inventory/m.yaml laid over inventory/m.yaml; `merge: false` starts anew"
    )
    loaded = load_files(tmp_path / "x", OURS, inventory__m="summary: x\n")
    assert [len(files) for files in loaded.fleet.sources.values()] == [2, 1]
