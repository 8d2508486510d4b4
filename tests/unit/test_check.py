"""What must fit together: each contradiction with its exact error, and its clean twin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet_files import error_lines, load_files
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.amounts import cpuset_cpus
from inferfleet.load.conflicts import ranges


@dataclass(frozen=True)
class Case:
    """Machine m as it is wrong and right; errors without the leading inventory/m.yaml:."""

    name: str
    wrong: str
    right: str
    errors: str


CASES = [
    Case(
        "user without address",
        "user: me\n",
        "address: h\nuser: me\n",
        "1:1: user: is for machines reached over SSH, and this one has no address\n"
        "hint: add address, or remove user",
    ),
    Case(
        "port and jump without address",
        "port: 22\njump: b\n",
        "address: h\nport: 22\njump: b\n",
        "1:1: port: is for machines reached over SSH, and this one has no address\n"
        "hint: add address, or remove port\n"
        "inventory/m.yaml:2:1: jump: is for machines reached over SSH, and this one has no address"
        "\nhint: add address, or remove jump",
    ),
    Case(
        "home directory on a remote machine",
        "address: h\nroot: ~/inferbase\n",
        "root: ~/inferbase\n",
        "2:7: root: ~/ has a meaning only on this machine itself\n"
        "hint: write it in full, such as /opt/inferbase",
    ),
    Case(
        "jump to itself",
        "address: h\njump: m\n",
        "address: h\njump: other\n",
        "2:7: jump: leads back to itself: m -> m",
    ),
    Case(
        "unknown hardware",
        "hardware: bax\n",
        "hardware: box\n",
        "1:11: hardware: there is no hardware bax\nhint: did you mean box?",
    ),
    Case(
        "unknown kind",
        "services:\n  a: {kind: engines, model: /m}\n",
        "services:\n  a: {kind: engine, model: /m}\n",
        "2:13: services.a.kind: there is no service kind engines\nhint: did you mean engine?",
    ),
    Case(
        "kind like no other",
        "services:\n  a: {kind: xyz, model: /m}\n",
        "services:\n  a: {kind: engine, model: /m}\n",
        (
            "2:13: services.a.kind: there is no service kind xyz\n"
            "hint: kinds: engine, page, store, tool"
        ),
    ),
    Case(
        "runtime the kind does not offer",
        "secrets: {PAGE_KEY: {env: K}}\nservices:\n  p: {kind: page, port: 1, runtime: systemd}\n",
        "secrets: {PAGE_KEY: {env: K}}\nservices:\n  p: {kind: page, port: 1, runtime: compose}\n",
        "3:37: services.p.runtime: kind page cannot run with systemd\nhint: it runs with: compose",
    ),
    Case(
        "machine's runtime that the kind does not offer",
        "runtime: compose\nservices:\n  t: {kind: tool, program: /t}\n",
        "runtime: process\nservices:\n  t: {kind: tool, program: /t}\n",
        "3:3: services.t: kind tool cannot run with compose\nhint: it runs with: process",
    ),
    Case(
        "keys of another runtime",
        "runtime: process\nservices:\n  a: {kind: engine, model: /m, image: x, shm: 1G}\n",
        "runtime: compose\nservices:\n  a: {kind: engine, model: /m, image: x, shm: 1G}\n",
        "3:32: services.a.image: has no effect with process\nhint: it is for compose\n"
        "inventory/m.yaml:3:42: services.a.shm: has no effect with process\n"
        "hint: it is for compose",
    ),
    Case(
        "program in a container",
        "services:\n  a: {kind: engine, model: /m, program: /p}\n",
        "services:\n  a: {kind: engine, model: /m, program: /p, runtime: systemd}\n",
        "2:32: services.a.program: has no effect with compose\nhint: it is for systemd and process",
    ),
    Case(
        "embedded program elsewhere",
        "address: h\nservices:\n  a: {kind: engine, model: /m, runtime: process}\n",
        "services:\n  a: {kind: engine, model: /m, runtime: process}\n",
        "3:3: services.a: has no program, and the embedded one runs only on this machine itself\n"
        "hint: add program, the executable's path there",
    ),
    Case(
        "no program at all",
        "services:\n  t: {kind: tool}\n",
        "services:\n  t: {kind: tool, program: /t}\n",
        "2:3: services.t: has no program, and kind tool brings none\n"
        "hint: add program, the executable's path there",
    ),
    Case(
        "no port",
        "secrets: {PAGE_KEY: {env: K}}\nservices:\n  p: {kind: page}\n",
        "secrets: {PAGE_KEY: {env: K}}\nservices:\n  p: {kind: page, port: 3000}\n",
        "3:3: services.p: has no port, and kind page has no default\nhint: add port",
    ),
    Case(
        "no model",
        "services:\n  a: {kind: engine}\n",
        "services:\n  a: {kind: engine, model: /m}\n",
        "2:3: services.a: has no model, and kind engine needs one\nhint: add model",
    ),
    Case(
        "modelfile without model",
        "services:\n  t: {kind: store, program: /t, modelfile: {}}\n",
        "services:\n  t: {kind: store, program: /t, model: m, modelfile: {}}\n",
        "2:33: services.t.modelfile: changes a model, and the service names none\nhint: add model",
    ),
    Case(
        "secret of the service",
        "secrets: {HF_TOKEN: {env: T}}\nservices:\n"
        "  a: {kind: engine, model: /m, secrets: [HF_TOKE]}\n",
        "secrets: {HF_TOKEN: {env: T}}\nservices:\n"
        "  a: {kind: engine, model: /m, secrets: [HF_TOKEN]}\n",
        "3:42: services.a.secrets[0]: the machine has no secret HF_TOKE\n"
        "hint: did you mean HF_TOKEN?",
    ),
    Case(
        "secret of the kind",
        "services:\n  p: {kind: page, port: 3000}\n",
        "secrets: {PAGE_KEY: {env: K}}\nservices:\n  p: {kind: page, port: 3000}\n",
        "2:3: services.p: kind page needs the secret PAGE_KEY, which the machine has not\n"
        "hint: add PAGE_KEY to the machine's secrets",
    ),
    Case(
        "unknown option",
        "services:\n  a: {kind: engine, model: /m, options: {contxt-size: 1}}\n",
        "services:\n  a: {kind: engine, model: /m, options: {context-size: 1}}\n",
        "2:42: services.a.options.contxt-size: kind engine has no such option\n"
        "hint: did you mean context-size?",
    ),
    Case(
        "managed option",
        "services:\n  a: {kind: engine, model: /m, options: {host: 0.0.0.0}}\n",
        "services:\n  a: {kind: engine, model: /m, bind: 0.0.0.0}\n",
        "2:42: services.a.options.host: is set by inferbase\nhint: use the key bind instead",
    ),
    Case(
        "removed option",
        "services:\n  a: {kind: engine, model: /m, options: {swap: 4}}\n",
        "services:\n  a: {kind: engine, model: /m, options: {threads.x: 4}}\n",
        "2:42: services.a.options.swap: kind engine has no such option any more\n"
        "hint: gone; use offload",
    ),
    Case(
        "port used twice",
        "services:\n  a: {kind: engine, model: /m, port: 80}\n"
        "  b: {kind: engine, model: /m, port: 80}\n",
        "services:\n  a: {kind: engine, model: /m, port: 80}\n"
        "  b: {kind: engine, model: /m, port: 81}\n",
        "3:38: services.b.port: 80 is also the port of a\nhint: give one of them another port",
    ),
    Case(
        "default port used twice",
        "services:\n  a: {kind: engine, model: /m}\n  b: {kind: engine, model: /m}\n",
        "services:\n  a: {kind: engine, model: /m}\n  b: {kind: engine, model: /m, port: 9001}\n",
        "3:3: services.b.port: 9000 is also the port of a\nhint: give one of them another port",
    ),
    Case(
        "port on all addresses and on one",
        "services:\n  a: {kind: engine, model: /m, bind: 0.0.0.0}\n"
        "  b: {kind: engine, model: /m, bind: 10.0.0.1}\n",
        "services:\n  a: {kind: engine, model: /m, bind: 10.0.0.2}\n"
        "  b: {kind: engine, model: /m, bind: 10.0.0.1}\n",
        "3:3: services.b.port: 9000 is also the port of a\nhint: give one of them another port",
    ),
    Case(
        "overlapping CPUs",
        "services:\n  a: {kind: engine, model: /m, cpuset: '0-3,9'}\n"
        "  b: {kind: engine, model: /m, port: 1, cpuset: '2-5,9'}\n",
        "services:\n  a: {kind: engine, model: /m, cpuset: '0-3,9'}\n"
        "  b: {kind: engine, model: /m, port: 1, cpuset: '4-8,10'}\n",
        "3:49: services.b.cpuset: b and a both pin CPU 2-3,9\nhint: pin them to different CPUs",
    ),
    Case(
        "CPU that does not exist",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, cpuset: 8-16}\n",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, cpuset: 8-15}\n",
        "3:40: services.a.cpuset: CPU 16 does not exist; the CPUs are 0-15",
    ),
    Case(
        "more CPUs than there are",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, cpus: 16.5}\n",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, cpus: 16}\n",
        "3:38: services.a.cpus: 16.5 is more than the 16 CPUs",
    ),
    Case(
        "more memory than there is",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, memory: 40G}\n"
        "  b: {kind: engine, model: /m, port: 1, memory: 20.5G}\n".replace("20.5G", "20992M"),
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, memory: 40G}\n"
        "  b: {kind: engine, model: /m, port: 1, memory: 20G}\n",
        "4:49: services.b.memory: the memory limits add up to 60.5 GiB (a 40 GiB, b 20.5 GiB), "
        "and box has 60 GiB (64 GiB less 4 GiB reserve)\n"
        "hint: lower a limit, or give one of them autostart: false",
    ),
    Case(
        "more memory than there is, unless one waits",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, memory: 61G}\n",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, memory: 61G, autostart: false}\n",
        "3:40: services.a.memory: the memory limits add up to 61 GiB (a 61 GiB), "
        "and box has 60 GiB (64 GiB less 4 GiB reserve)\n"
        "hint: lower a limit, or give one of them autostart: false",
    ),
    Case(
        "GPU where there is none",
        "hardware: bare\nservices:\n  a: {kind: engine, model: /m, gpus: all}\n",
        "hardware: bare\nservices:\n  a: {kind: engine, model: /m, gpus: none}\n",
        "3:38: services.a.gpus: hardware bare has no GPU\nhint: remove the key, or write none",
    ),
    Case(
        "GPU that does not exist",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, gpus: [1, 2]}\n",
        "hardware: box\nservices:\n  a: {kind: engine, model: /m, gpus: [0, 1, GPU-0-1]}\n",
        "3:42: services.a.gpus[1]: GPU 2 does not exist; the GPUs are 0-1",
    ),
    Case(
        "exclusive GPU for two",
        "hostprep: {gpu: {compute-mode: exclusive-process}}\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: all}\n  b: {kind: engine, model: /m, port: 1}\n",
        "hostprep: {gpu: {compute-mode: exclusive-process}}\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: [0]}\n"
        "  b: {kind: engine, model: /m, port: 1, gpus: [1]}\n",
        "1:32: hostprep.gpu.compute-mode: exclusive-process lets one process use a GPU, and a and "
        "b share one\nhint: use hostprep: {gpu: {compute-mode: default}}, or give them different "
        "gpus",
    ),
    Case(
        "exclusive GPU for two, one of them on the CPU",
        "hostprep: {gpu: {compute-mode: exclusive-process}}\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: [0]}\n"
        "  b: {kind: engine, model: /m, port: 1, gpus: [0]}\n",
        "hostprep: {gpu: {compute-mode: exclusive-process}}\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: [0]}\n"
        "  b: {kind: engine, model: /m, port: 1, gpus: none}\n",
        "1:32: hostprep.gpu.compute-mode: exclusive-process lets one process use a GPU, and a and "
        "b share one\nhint: use hostprep: {gpu: {compute-mode: default}}, or give them different "
        "gpus",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_contradiction_and_its_clean_twin(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = load_files(tmp_path, {"inventory/m.yaml": case.wrong})
    assert error_lines(wrong) == f"inventory/m.yaml:{case.errors}"
    assert {error.code for error in wrong.errors} == {64}
    assert error_lines(load_files(tmp_path, {"inventory/m.yaml": case.right})) == ""


def test_a_circle_of_jumps_is_reported_by_each_of_its_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    machines = {
        "inventory/a.yaml": "address: a\njump: b\n",
        "inventory/b.yaml": "address: b\njump: c\n",
        "inventory/c.yaml": "address: c\njump: b\n",
        "inventory/d.yaml": "address: d\njump: alias-of-ssh\n",
    }
    assert error_lines(load_files(tmp_path, machines)) == (
        "inventory/b.yaml:2:7: jump: leads back to itself: b -> c -> b\n"
        "inventory/c.yaml:2:7: jump: leads back to itself: c -> b -> c"
    )


def test_services_that_are_wrong_in_themselves_do_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "services:\n  a: {kind: engine, port: 0}\n  b: {kind: engin, model: /m}\n"
    assert error_lines(load_files(tmp_path, {"inventory/m.yaml": text})) == (
        "inventory/m.yaml:2:3: services.a: has no model, and kind engine needs one\n"
        "hint: add model\n"
        "inventory/m.yaml:2:27: services.a.port: 0 is below 1\n"
        "inventory/m.yaml:3:13: services.b.kind: there is no service kind engin\n"
        "hint: did you mean engine?"
    )


@settings(deadline=None)
@given(st.frozensets(st.integers(0, 60), min_size=1))
def test_cpu_ranges_are_read_back(cpus: frozenset[int]) -> None:
    assert cpuset_cpus(ranges(cpus)) == cpus


@pytest.mark.parametrize(
    ("more", "refused"),
    [("", True), (", image: x:2", False), (", runtime: process, program: /x", False)],
)
def test_an_option_newer_than_the_image(tmp_path: Path, more: str, refused: bool) -> None:
    container = "image: x:1, port: 1, user: '1:1', healthcheck: {test: [CMD, x]}"
    kind = (
        "summary: s\napi: openai\ndefault-port: 1\n"
        "options: {style: llama-cpp, known: [old, new], newer: {new: build 2}}\n"
        f"compose: {{{container}}}\nprocess: {{command: ['{{program}}']}}\n"
    )
    machine = f"services:\n  a: {{kind: k, options: {{old: 1, new: 1}}{more}}}\n"
    loaded = load_files(tmp_path, {"services/k.yaml": kind, "inventory/m.yaml": machine})
    complaint = (
        "services.a.options.new: the image of kind k is older than this option\n"
        "hint: it came with build 2: set image to a newer one"
    )
    assert error_lines(loaded).partition("m.yaml:2:34: ")[2] == (complaint if refused else "")
    assert bool(loaded.errors) == refused
