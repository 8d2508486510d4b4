"""What a release says, when services are replaced, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import render_cases
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferfleet.errors import FleetError
from inferfleet.release.release import Release
from inferfleet.render.render import render, write_release
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Service
from inferfleet.secrets import Secret

WORKSTATION = "case-workstation"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def workstation(service: str = "", **changes: object) -> Release:
    fleet = render_cases.fleet("workstation")
    if service:
        fleet = render_cases.with_service(fleet, WORKSTATION, service, **changes)
    return render_cases.render_fleet(fleet, WORKSTATION)


def replaced(before: Release, after: Release) -> set[str]:
    return {name for name, unit in after.units.items() if before.units[name].digest != unit.digest}


@pytest.mark.parametrize(
    ("service", "changes", "expected"),
    [
        ("llama-gpu", {}, set()),
        ("llama-gpu", {"options": {"ctx-size": 1}}, {"llama-gpu"}),
        ("llama-gpu", {"memory": 1 << 30}, {"llama-gpu"}),
        ("llama-gpu", {"start_timeout": 1234}, {"llama-gpu"}),
        ("llama-gpu", {"autostart": False}, {"llama-gpu"}),
        ("vllm-gpu", {"secrets": []}, {"vllm-gpu", "open-webui"}),
        ("ollama", {"port": 12345}, {"ollama"}),
    ],
)
def test_only_what_changed_is_replaced(
    service: str, changes: dict[str, object], expected: set[str]
) -> None:
    assert replaced(workstation(), workstation(service, **changes)) == expected


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (["1"], ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=1"]),
        ("none", ["CUDA_VISIBLE_DEVICES="]),
        ("all", []),
    ],
)
def test_gpus_of_a_unit_are_counted_as_by_the_driver(gpus: object, expected: list[str]) -> None:
    fleet = render_cases.with_service(
        render_cases.fleet("native"), "case-native", "vllm", gpus=gpus, runtime="systemd"
    )
    unit = render_cases.render_fleet(fleet, "case-native").files
    (text,) = [f.content.decode() for path, f in unit.items() if path.endswith("-vllm.service")]
    found = [line for line in text.splitlines() if line.startswith("Environment=CUDA_")]
    assert found == [f"Environment={line}" for line in expected]


def test_a_secret_replaces_who_has_it() -> None:
    fleet = render_cases.fleet("workstation")
    secrets = render_cases.secrets(fleet.machines[WORKSTATION])
    before = render(fleet, WORKSTATION, secrets)
    after = render(fleet, WORKSTATION, {**secrets, "VLLM_API_KEY": Secret("other")})
    assert replaced(before, after) == {"vllm-gpu", "open-webui"}


def test_a_modelfile_replaces_its_service() -> None:
    fleet = render_cases.fleet("spark")
    name = "ollama-qwen3-32b-fp8"
    before = render_cases.render_fleet(fleet, "case-spark")
    spec = fleet.machines["case-spark"].services[name].modelfile
    assert spec is not None
    changed = render_cases.with_service(
        fleet, "case-spark", name, modelfile=spec.model_copy(update={"system": "Other."})
    )
    assert replaced(before, render_cases.render_fleet(changed, "case-spark")) == {name}


def test_a_modelfile_replaces_a_native_service() -> None:
    fleet, name, machine = render_cases.fleet("spark"), "ollama-qwen3-32b-fp8", "case-spark"
    spec = fleet.machines[machine].services[name].modelfile
    assert spec is not None
    native = render_cases.with_service(fleet, machine, name, runtime="systemd")
    changed = render_cases.with_service(
        native, machine, name, modelfile=spec.model_copy(update={"system": "Other."})
    )
    before = render_cases.render_fleet(native, machine)
    after = render_cases.render_fleet(changed, machine)
    assert replaced(before, after) == {name}
    (path,) = [path for path in before.files if path.endswith("/Modelfile")]
    assert b"Other." in after.files[path].content
    unit = before.files[next(path for path in before.files if path.endswith(".service"))].content
    assert b"Environment=OLLAMA_HOST=127.0.0.1:" in unit


@pytest.mark.parametrize(("bind", "host"), [("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")])
def test_an_address_before_a_port(bind: str, host: str) -> None:
    spark, name = render_cases.fleet("spark"), "ollama-qwen3-32b-fp8"
    native = render_cases.with_service(spark, "case-spark", name, runtime="systemd", bind=bind)
    files = render_cases.render_fleet(native, "case-spark").files
    unit = next(one.content.decode() for path, one in files.items() if path.endswith(".service"))
    assert f"Environment=OLLAMA_HOST={host}:11434\n" in unit.replace('"', "")
    exporter = Service(kind="node-exporter", bind=bind)
    for runtime in ("compose", "systemd"):
        changed = exporter.model_copy(update={"runtime": runtime})
        machine = spark.machines["case-spark"].model_copy(update={"services": {"node": changed}})
        fleet = dataclasses.replace(spark, machines={"case-spark": machine})
        files = render_cases.render_fleet(fleet, "case-spark").files
        text = "".join(one.content.decode() for one in files.values())
        assert f"--web.listen-address={host}:9100" in text
        assert (f"http://{host}:9100/" in text) is (runtime == "compose")


@pytest.mark.parametrize(
    ("bind", "addresses", "hosts", "origins"),
    [
        ("127.0.0.1", {"address": "lab.example.org"}, [], None),
        (
            "10.0.0.9",
            {"address": "admin@lab.example.org:2222", "site_address": "10.0.0.9"},
            ["10.0.0.9", "10.0.0.9:*", "lab.example.org", "lab.example.org:*"],
            "http://10.0.0.9:5000,http://lab.example.org:5000",
        ),
        # An address that means all of them is none that a client calls.
        ("0.0.0.0", {"address": "lab"}, ["lab", "lab:*"], "http://lab:5000"),
        ("0.0.0.0", {"address": None}, [], None),
        # MLflow reads a name with a * as the shell does.
        ("::", {"address": "fd00::4"}, ["[fd00::4]", "[[]fd00::4]:*"], "http://[fd00::4]:5000"),
    ],
)
def test_names_that_mlflow_answers_to(
    bind: str, addresses: dict[str, str | None], hosts: list[str], origins: str | None
) -> None:
    """Those that clients reach it by: it answers 403 to any other."""
    lab = render_cases.fleet("lab")
    for runtime in ("compose", "systemd"):
        service = Service(kind="mlflow", bind=bind, runtime=runtime)
        machine = lab.machines["case-lab"].model_copy(
            update={**addresses, "services": {"tracking": service}}
        )
        fleet = dataclasses.replace(lab, machines={"case-lab": machine})
        files = render_cases.render_fleet(fleet, "case-lab").files
        text = "".join(one.content.decode() for one in files.values())
        found = re.search(r"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS[:=] *\"?([^\n\"]*)", text)
        assert (found and found[1]) == origins
        if runtime == "compose":
            always = "localhost,localhost:*,127.0.0.1,127.0.0.1:*,tracking,tracking:*"
            assert f'"{",".join([always, *hosts])}"' in text


def test_a_template_of_a_modelfile_goes_before_that_of_the_weights() -> None:
    fleet = render_cases.fleet("spark")
    name, machine = "ollama-qwen3-32b-fp8", "case-spark"
    spec = fleet.machines[machine].services[name].modelfile
    assert spec is not None
    for template, said in ((None, None), ("{{ .Prompt }}", "1")):
        changed = spec.model_copy(update={"template": template})
        over = render_cases.with_service(fleet, machine, name, modelfile=changed)
        compose = render_cases.render_fleet(over, machine).files["compose.yaml"].content
        environment = yaml.safe_load(compose)["services"][name]["environment"]
        assert environment.get("OLLAMA_GO_TEMPLATE") == said


def test_a_network_replaces_all_containers() -> None:
    fleet = render_cases.fleet("workstation")
    machine = fleet.machines[WORKSTATION].model_copy(update={"network": None})
    changed = dataclasses.replace(fleet, machines={WORKSTATION: machine})
    after = render_cases.render_fleet(changed, WORKSTATION)
    assert replaced(workstation(), after) == set(after.units)


def test_the_digest_is_not_on_the_container() -> None:
    """It is made from secrets too, and labels can be read by everyone who may use Docker."""
    release = workstation()
    text = release.files["compose.yaml"].content.decode()
    assert not [unit for unit in release.units.values() if unit.digest in text]


def test_wired_services_start_last() -> None:
    assert list(workstation().units)[-1] == "open-webui"


def test_wiring() -> None:
    release = workstation()
    web = yaml.safe_load(release.files["compose.yaml"].content)["services"]["open-webui"]
    environment = web["environment"]
    assert environment["OPENAI_API_BASE_URLS"] == (
        "http://llama-gpu:8080/v1;http://vllm-gpu:8000/v1;http://llama-cpu:8080/v1"
    )
    assert environment["OLLAMA_BASE_URLS"] == "http://ollama:11434"
    assert "OPENAI_API_KEYS" not in environment
    assert b'OPENAI_API_KEYS="none;canary-VLLM' in release.files["env/open-webui.env"].content


def test_keys_are_plain_where_no_service_has_one() -> None:
    release = workstation("vllm-gpu", secrets=[])
    web = yaml.safe_load(release.files["compose.yaml"].content)["services"]["open-webui"]
    assert web["environment"]["OPENAI_API_KEYS"] == "none;none;none"


def test_gpu_selects_the_image() -> None:
    services = yaml.safe_load(workstation().files["compose.yaml"].content)["services"]
    assert ":server-cuda-" in services["llama-gpu"]["image"]
    devices = services["llama-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]
    assert "deploy" not in services["llama-cpu"]
    cpu = yaml.safe_load(workstation("llama-gpu", gpus="none").files["compose.yaml"].content)
    assert ":server-b" in cpu["services"]["llama-gpu"]["image"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TEXT, min_size=6, max_size=6))
def test_any_text_is_one_value(texts: list[str]) -> None:
    """Through the whole of rendering, into compose.yaml as YAML and docker compose read it."""
    release = workstation(
        "vllm-gpu",
        env={"A": texts[0], "B": texts[1]},
        served_name=texts[2],
        options={"x": texts[3], "y": {texts[4]: texts[5]}},
    )
    service = yaml.safe_load(release.files["compose.yaml"].content)["services"]["vllm-gpu"]
    for value in (*service["environment"].values(), *service["command"]):
        assert "$" not in value.replace("$$", "")
    environment = {k: v.replace("$$", "$") for k, v in service["environment"].items()}
    command = [word.replace("$$", "$") for word in service["command"]]
    assert (environment["A"], environment["B"]) == (texts[0], texts[1])
    assert command[command.index("--served-model-name") + 1] == texts[2]
    wanted = [f"--x={texts[3]}"] if texts[3].startswith("-") else ["--x", texts[3]]
    assert command[-len(wanted) - 2 : -2] == wanted
    assert json.loads(command[-1]) == {texts[4]: texts[5]}


def failing(service: str, **changes: object) -> FleetError:
    with pytest.raises(FleetError) as caught:
        workstation(service, **changes)
    return caught.value


def test_missing_secret() -> None:
    with pytest.raises(FleetError, match="vllm-gpu needs the secret VLLM_API_KEY"):
        render(render_cases.fleet("workstation"), WORKSTATION, {})


def test_a_key_that_would_fall_apart() -> None:
    fleet = render_cases.fleet("workstation")
    secrets = render_cases.secrets(fleet.machines[WORKSTATION])
    with pytest.raises(FleetError, match="separates keys") as caught:
        render(fleet, WORKSTATION, {**secrets, "VLLM_API_KEY": Secret("canary;key")})
    assert "canary" not in str(caught.value)


def test_runtime_that_the_kind_has_not() -> None:
    error = failing("ollama", runtime="process")
    assert (error.what, error.hint) == (
        "ollama: the kind ollama does not run with the runtime process",
        "it runs with compose, systemd",
    )


def test_embedded_engine_on_a_remote_machine() -> None:
    assert "needs program" in failing("llama-cpu", runtime="process").what


def test_home_on_a_remote_machine() -> None:
    fleet = render_cases.fleet("spark")
    machine = fleet.machines["case-spark"].model_copy(update={"root": "~/x"})
    fleet = dataclasses.replace(fleet, machines={"case-spark": machine})
    with pytest.raises(FleetError, match="only possible on the local machine"):
        render_cases.render_fleet(fleet, "case-spark")


def overlaid(folder: Path, name: str, text: str) -> Fleet:
    """The workstation's fleet with one template of ours replaced."""
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text)
    fleet = render_cases.fleet("workstation")
    return dataclasses.replace(fleet, template_dirs=(folder, *fleet.template_dirs))


def test_a_consumers_template_wins(tmp_path: Path) -> None:
    fleet = overlaid(tmp_path, "compose/service.yaml.j2", "image: {{ s.image | compose }}\n")
    release = render_cases.render_fleet(fleet, WORKSTATION)
    service = yaml.safe_load(release.files["compose.yaml"].content)["services"]["llama-gpu"]
    assert service.keys() == {"image", "labels"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: {{ s.nosuch }}\n", 2, "nosuch"),
        ("a: 1\n\nb: {{ nosuch | compose }}\n", 3, "nosuch"),
        ("a: 1\n{% if %}\n", 2, "Expected an expression"),
        ("{{ s.image | nosuch }}", 1, "nosuch"),
        ("\n{{ 1 + 'a' }}", 2, "unsupported operand"),
    ],
)
def test_template_mistakes(tmp_path: Path, text: str, line: int, what: str) -> None:
    fleet = overlaid(tmp_path, "compose/service.yaml.j2", text)
    with pytest.raises(FleetError, match=what) as caught:
        render_cases.render_fleet(fleet, WORKSTATION)
    assert caught.value.where is not None
    assert caught.value.where.file.endswith("compose/service.yaml.j2")
    assert caught.value.where.line == line


def test_missing_template(tmp_path: Path) -> None:
    fleet = dataclasses.replace(render_cases.fleet("workstation"), template_dirs=(tmp_path,))
    with pytest.raises(FleetError, match=r"no template compose/service\.yaml\.j2"):
        render_cases.render_fleet(fleet, WORKSTATION)


def test_written_files(tmp_path: Path) -> None:
    release = render_cases.render_case("native")
    out = tmp_path / "out"
    written = write_release(release, out)
    assert {str(path.relative_to(out)) for path in written} == {
        *release.files,
        "LINKS",
        ".units",
        ".gitignore",
    }
    # Some of it is secret, and folders such as this one lie in repositories.
    assert out.stat().st_mode & 0o777 == 0o700
    assert (out / ".gitignore").read_text() == "*\n"
    for name, file in release.files.items():
        assert (out / name).read_bytes() == file.content
        assert (out / name).stat().st_mode & 0o777 == file.mode
    assert write_release(release, out) == written


def test_what_is_gone_is_removed(tmp_path: Path) -> None:
    write_release(render_cases.render_case("spark"), tmp_path)
    assert (tmp_path / "ollama").is_dir()
    write_release(render_cases.render_case("laptop"), tmp_path)
    assert not (tmp_path / "compose.yaml").exists()
    assert (tmp_path / "process/smollm2/run").exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FleetError, match="holds files that are not of a rendering"):
        write_release(render_cases.render_case("spark"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("spoil", ["foreign", "edited", "link", "parent link"])
def test_foreign_files_are_left_alone(tmp_path: Path, spoil: str) -> None:
    release, out = render_cases.render_case("spark"), tmp_path / "out"
    out.mkdir()
    target = out / "compose.yaml"
    if spoil == "edited":
        write_release(release, out)
        target.write_text("mine")
    elif spoil == "foreign":
        target.write_text("mine")
    elif spoil == "link":
        (tmp_path / "elsewhere").write_text("mine")
        target.symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
        (out / "env").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FleetError, match=r"left alone|is a link"):
        write_release(release, out)
    if spoil == "parent link":
        assert not list((tmp_path / "elsewhere").iterdir())
        assert not target.exists()
    else:
        assert target.read_text() == "mine"
