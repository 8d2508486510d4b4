"""After ready, for real: an engine that hangs, one at work, crash loops, starts that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import Fleet, Place, inspect
from testbed.machine import MODEL, TestMachine
from testbed.session import Testbed

pytestmark = pytest.mark.usefixtures("gguf")

STORY = json.dumps({"prompt": "Once upon a time", "n_predict": 450, "ignore_eos": True})


@pytest.fixture(scope="module")
def box(testbed: Testbed) -> Iterator[TestMachine]:
    """A machine of this module's own: its services are frozen, killed and started again."""
    made = testbed.machine()
    yield made
    testbed.destroy(made)


@pytest.fixture
def place(box: TestMachine, tmp_path: Path, testbed: Testbed) -> Place:
    return Place(box, Fleet(tmp_path, testbed.home))


def signal(place: Place, name: str) -> None:
    """Send a signal to the engine inside the place's container."""
    pid = inspect(place.machine, place.container)["State"]["Pid"]
    place.machine.check(f"kill -{name} $(pgrep -P {pid} || echo {pid})")


def health(place: Place, *words: str) -> tuple[int, dict[str, Any]]:
    done = place.invoke("health", "--format", "json", *words)
    (row,) = done.data
    return done.rc, row


def test_an_engine_at_work_is_busy_and_one_that_hangs_is_restarted(place: Place) -> None:
    """One slot, three stories in the queue: our token waits, and llama.cpp's counters tell why."""
    place.write(
        options={"parallel": 1},
        health={"deadline": "4s"},
        secrets=["LLAMA_API_KEY"],
        **{"start-timeout": "10m"},
    )
    # Nobody in a process that stands still hears the signal to end.
    (place.fleet.overlay / "services").mkdir()
    quick = {"compose": {"stop-timeout": "2s"}}
    (place.fleet.overlay / "services" / "llama-cpp.yaml").write_text(yaml.safe_dump(quick))
    machine_file = place.fleet.overlay / "inventory" / f"{place.machine.name}.yaml"
    wanted = yaml.safe_load(machine_file.read_text())
    wanted["secrets"] = {"LLAMA_API_KEY": {"env": "CANARY"}}
    machine_file.write_text(yaml.safe_dump(wanted))

    def run(*words: str) -> Any:
        name = place.machine.name
        return place.fleet.invoke(*words, "--host", name, "--format", "json", CANARY="canary-5a")

    up = run("up")
    assert up.rc == 0, up
    fine = run("health")
    assert (fine.rc, fine.data[0]["verdict"], fine.data[0]["running"]) == (0, "healthy", 0), fine

    begin = (
        f"for i in 1 2 3; do curl -s -H 'Authorization: Bearer canary-5a' -d '{STORY}' "
        f"http://127.0.0.1:{place.port}/completion >/dev/null 2>&1 & done; wait"
    )
    place.machine.check(f"nohup sh -c {json.dumps(begin)} >/dev/null 2>&1 & sleep 0.3")
    busy = run("health")
    assert (busy.rc, busy.data[0]["verdict"]) == (0, "busy"), busy
    assert busy.data[0]["running"] >= 2

    signal(place, "STOP")
    seen = run("health")  # within its start-timeout, but `up` has seen it ready
    # Its counters stand still with it, which alone proves nothing.
    assert (seen.rc, seen.data[0]["verdict"]) == (3, "unreachable"), seen
    assert "did not answer in time" in seen.data[0]["detail"], seen
    assert "canary" not in seen.out + seen.err
    before = inspect(place.machine, place.container)["State"]["StartedAt"]
    again = run("health", "--restart", "--at-most", "1", "--wait", "60s")
    assert (again.rc, again.data[0]["verdict"]) == (0, "healthy"), again
    assert inspect(place.machine, place.container)["State"]["StartedAt"] > before
    ledger = f"{place.root}/.inferbase/restarts/llama"
    assert len(place.machine.read(ledger).split()) == 1
    # Of this start it was the look above that saw it ready; of the next one nobody has.
    signal(place, "STOP")
    assert run("health").data[0]["verdict"] == "unreachable"
    signal(place, "CONT")
    place.machine.check(f"docker restart --time 2 {place.container}")
    signal(place, "STOP")
    assert run("health").data[0]["verdict"] == "loading"
    signal(place, "CONT")
    assert place.invoke("down").rc == 0


def test_a_crash_loop_of_a_container_ends(place: Place) -> None:
    """It stays stopped, over a lost power, too; `health` says so, and `up` goes on."""
    place.write(restart={"max": 1})
    assert place.invoke("up").rc == 0
    policy = inspect(place.machine, place.container)["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 1}
    place.machine.check(
        f"until docker inspect {place.container} | grep -q exited; do "
        "pkill -KILL -x llama-server; sleep 0.2; done"
    )
    rc, row = health(place)
    assert (rc, row["verdict"]) == (3, "dead")
    assert "gave up after 1 restarts" in row["detail"]
    assert "`invoke up --service llama` starts it again" in row["hint"]
    place.machine.lose_power()
    place.machine.start()
    status = place.invoke("status", "--format", "json")
    assert "gave up after 1 restarts" in status.data[0]["detail"], status
    assert place.invoke("up").rc == 0
    assert health(place)[0] == 0
    assert place.invoke("down").rc == 0


@pytest.mark.parametrize("runtime", ["systemd", pytest.param("process", marks=pytest.mark.slow)])
def test_a_crash_loop_of_a_program_ends(place: Place, runtime: str) -> None:
    folder = place.fleet.overlay / "services"
    folder.mkdir()
    program = f"/srv/{runtime}-sleeper"
    command = ["{program}", "1000"]
    kind = {
        "summary": "sleeps", "api": "http", "default-port": 7999,
        "systemd": {"program": program, "command": command}, "process": {"command": command},
    }  # fmt: skip
    (folder / "sleeper.yaml").write_text(yaml.safe_dump(kind))
    place.machine.write(program, "#!/bin/sh\nexec sleep 1000\n", mode="755")
    service = {
        "kind": "sleeper", "program": program, "restart": {"max": 1, "backoff": "1s"},
    }  # fmt: skip
    root = f"/opt/{runtime}-loop"
    place.fleet.host(
        place.machine, {"sleeper": service}, root=root, user="admin", sudo=True, runtime=runtime
    )
    up = place.invoke("up", "--yes")
    assert up.rc == 0, up
    assert health(place)[1]["verdict"] == "healthy"
    if runtime == "systemd":
        place.machine.check(
            "systemctl show -p InvocationID systemd-loop-sleeper.service "
            f"| cmp - {root}/.inferbase/ready/sleeper"
        )
    place.machine.write(program, "#!/bin/sh\necho no luck today; exit 3\n", mode="755")
    place.machine.check("pkill -KILL -x sleep")
    limit = time.monotonic() + 30
    while "gave up after 1 restarts" not in (row := health(place)[1])["detail"]:
        assert time.monotonic() < limit, row
    assert row["verdict"] == "dead"
    assert any("no luck today" in line for line in row["logs"]), row
    if runtime == "systemd":
        verified = place.machine.check(
            "systemd-analyze verify systemd-loop-sleeper.service 2>&1 | grep -v SysV || true"
        )
        assert verified == ""
    place.machine.write(program, "#!/bin/sh\nexec sleep 1000\n", mode="755")
    assert place.invoke("up", "--yes").rc == 0
    assert health(place)[0] == 0
    assert place.invoke("down", "--yes").rc == 0


def test_starts_that_fail_speak_in_the_engine_s_own_words(place: Place) -> None:
    """A template that it refuses, and a model file that was cut off; both for real."""
    # Where containers see it: beside the models.
    place.machine.write("/srv/broken/t.jinja", "{% for m in messages %}{{ m.content }")
    volume = {"source": "/srv/broken", "target": "/srv/broken"}
    place.write(options={"chat-template-file": "/srv/broken/t.jinja"}, volumes=[volume])
    refused = place.invoke("up")
    assert refused.rc == 1, refused
    assert "the engine refuses the chat template: parser: Parser Error" in refused.err, refused
    assert "hint: correct the file that chat-template-file names" in refused.err
    words = refused.err.split("in its own words:\n")[1].splitlines()
    assert "common_chat_templates_init: error" in words[0]
    assert words[1].strip().startswith("...{% for m in messages %}")

    place.machine.check(f"head -c 5000000 {MODEL} >/srv/broken/cut.gguf")
    place.write(model="/srv/broken/cut.gguf")
    refused = place.invoke("up")
    assert refused.rc == 1, refused
    assert "the model file is damaged or was cut off" in refused.err, refused
    assert "data is not within the file bounds" in refused.err.split("in its own words:")[1]
    assert place.machine.run(f"docker inspect {place.container}").rc != 0
