"""The tasks from outside: exit codes, what goes where, and a secret that must not show."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from faults.fleet import KIND, MACHINE, REPOSITORY, FleetBox, Recorder
from ports import free_port

from inferfleet.events import silent
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed

CANARY = "canary-5fe1d0c7-TELL"
AT = ("--host", MACHINE)


def test_exit_codes_of_the_main_verbs(empty: FleetBox) -> None:
    box = empty
    fresh = box.invoke("plan", *AT, "--format", "json")
    assert fresh.returncode == 2
    (data,) = json.loads(fresh.stdout)
    assert data["generation"] == {"from": 0, "to": 1}
    assert [s["action"] for s in data["steps"]] == ["create", "create", "start"]
    up = box.invoke("up", *AT)
    assert up.returncode == 0, up.stderr
    assert "changed" in up.stdout
    assert f"curl http://127.0.0.1:{box.port}/v1/models" in up.stderr
    same = box.invoke("plan", *AT)
    assert same.returncode == 0
    assert "nothing to change" in same.stdout
    health = box.invoke("health", *AT, "--format", "json")
    assert health.returncode == 0
    assert json.loads(health.stdout)[0]["verdict"] == "healthy"
    status = json.loads(box.invoke("status", *AT, "--format", "json").stdout)
    assert status[0]["state"] == "running"
    assert status[0]["detail"].startswith("pid ")
    down = box.invoke("down", *AT)
    assert down.returncode == 0
    assert "stopping services" in down.stderr
    assert "starting" not in down.stderr
    assert box.invoke("health", *AT).returncode == 3
    history = json.loads(box.invoke("history", *AT, "--format", "json").stdout)
    assert [(e["event"], e["generation"]) for e in history] == [("up", 1), ("down", 1)]


def test_a_failing_up_exits_1_and_shows_the_log(box: FleetBox) -> None:
    box.serve("two", mode="never", **{"start-timeout": "1s"})
    result = box.invoke("up", *AT, "--format", "json")
    assert result.returncode == 1
    (row,) = json.loads(result.stdout)
    assert row["result"] == "rolled back"
    assert row["generation"] == 1
    assert "rolling back" in result.stderr
    assert "last lines of its log:" in result.stderr
    assert "echo: says two" in result.stderr
    assert box.says() == "one"


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--host", "bix"),
        ("up", "--host", MACHINE, "--service", "ecko"),
        ("status", "--group", "nobody"),
        ("status", "--host", MACHINE, "--format", "xml"),
        ("render", "--host", MACHINE),
    ],
)
def test_mistakes_exit_64_and_touch_nothing(empty: FleetBox, words: tuple[str, ...]) -> None:
    result = empty.invoke(*words)
    assert result.returncode == 64
    assert result.stdout == ""
    assert "error: " in result.stderr
    assert "hint: " in result.stderr
    assert not empty.root.exists()


def test_mistake_in_the_file_exits_64_with_its_place(empty: FleetBox) -> None:
    empty.machine["sudoo"] = True
    empty.write()
    result = empty.invoke("up", *AT)
    assert result.returncode == 64
    assert "box.yaml:" in result.stderr
    assert not empty.root.exists()


def test_followed_logs_end_with_an_interrupt(box: FleetBox) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", "logs", *AT, "--follow"],
        cwd=REPOSITORY,
        env=box.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inferbase: started\n"
    assert process.stdout.readline() == "echo: says one\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted\n"


def test_secret_shows_nowhere(empty: FleetBox) -> None:
    box, outputs, seen = empty, [], CommandLines()
    box.machine["secrets"] = {"TOKEN": {"env": "TOKEN"}}
    own = {"secrets": ["TOKEN"]}
    env = {"TOKEN": CANARY}
    with seen:
        box.serve("one", **own)
        outputs.append(("up", 0, box.invoke("up", *AT, env=env)))
        outputs.append(("plan", 2, box.invoke("plan", *AT, env={"TOKEN": f"{CANARY}-2"})))
        box.serve("two", env={"LEAK": "1"}, mode="never", **own, **{"start-timeout": "1s"})
        outputs.append(("plan", 2, box.invoke("plan", *AT, "--format", "json", env=env)))
        outputs.append(("up", 1, box.invoke("up", *AT, env=env)))
        outputs.append(("logs", 0, box.invoke("logs", *AT, env=env)))
        # No service wants it any more: what stays of it is deleted unseen.
        box.services["echo"].pop("secrets")
        box.services["echo"].pop("start-timeout")
        box.serve("three", env={})
        outputs.append(("plan", 2, box.invoke("plan", *AT, env=env)))
        assert "delete env/echo.env" in outputs[-1][2].stdout
        outputs.append(("up", 0, box.invoke("up", *AT, env=env)))
    assert [(verb, r.returncode) for verb, _, r in outputs] == [(v, code) for v, code, _ in outputs]
    for verb, _, result in outputs:
        assert CANARY not in result.stdout, verb
        assert CANARY not in result.stderr, verb
    assert "the key is ***" in "".join(r.stdout for verb, _, r in outputs if verb == "logs")
    assert seen.count > 0
    assert seen.bad == []
    holders = [p for p in files(box.root) if CANARY.encode() in p.read_bytes()]
    assert holders, "the canary is somewhere, or this test proves nothing"
    for path in holders:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_events_do_not_hold_a_secret(empty: FleetBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", CANARY)
    empty.machine["secrets"] = {"TOKEN": {"env": "TOKEN"}}
    empty.serve("one", secrets=["TOKEN"])
    recorder = Recorder()
    assert empty.up(recorder).ok
    assert CANARY not in repr(recorder.events)
    assert empty.planned().plan.empty
    assert CANARY not in repr(empty.planned())


def test_without_its_secret_status_claims_no_changes(empty: FleetBox) -> None:
    empty.machine["secrets"] = {"TOKEN": {"env": "TOKEN"}}
    empty.serve("one", secrets=["TOKEN"])
    assert empty.invoke("up", *AT, env={"TOKEN": CANARY}).returncode == 0
    rows = json.loads(empty.invoke("status", *AT, "--format", "json").stdout)
    assert "pending" not in rows[0]["detail"]
    assert [r["detail"] for r in rows if r["state"] == "note"] == [
        "secrets that cannot be had here: TOKEN; so changes cannot be told"
    ]
    assert empty.invoke("down", *AT).returncode == 0


def files(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if p.is_file() and not p.is_symlink()]


class CommandLines:
    """Looks for the canary on every command line of the machine while it is open."""

    def __init__(self) -> None:
        self.bad: list[bytes] = []
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = entry.read_bytes()
                except OSError:
                    continue
                self.count += 1
                if CANARY.encode() in line:
                    self.bad.append(line)


def test_restart_restarts_what_is_in_force(box: FleetBox) -> None:
    """Like `docker compose restart`: what the files say by now waits for `up`."""
    before = box.observed().units["echo"].detail.split(",")[0]
    box.serve("two")
    done = box.invoke("restart", *AT, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["generation"] == 1
    assert "~ replace echo  (was asked to restart)" in done.stderr
    assert "changes of the files wait for `invoke up`" in done.stderr
    assert (box.says(), box.kept()) == ("one", [1])
    assert box.observed().units["echo"].detail.split(",")[0] != before
    box.serve("extra", "new", port=box.port + 1)
    refused = box.invoke("restart", *AT, "--service", "new")
    assert refused.returncode == 1
    assert "new is not in force on box" in refused.stderr
    assert box.invoke("plan", *AT).returncode == 2


def test_restart_makes_no_generation_of_what_was_changed_on_the_machine(empty: FleetBox) -> None:
    box, key = empty, {"TOKEN": CANARY}
    box.machine["secrets"] = {"TOKEN": {"env": "TOKEN"}}
    box.serve("one", secrets=["TOKEN"])
    assert box.invoke("up", *AT, env=key).returncode == 0
    (env,) = box.state.rglob("echo.env")
    env.chmod(0o644)
    refused = box.invoke("restart", *AT, env=key)
    assert refused.returncode == 1
    assert "generation 1 was changed on box: env/echo.env\nhint: `invoke up`" in refused.stderr
    assert box.kept() == [1]
    assert box.invoke("up", *AT, env=key).returncode == 0
    done = box.invoke("restart", *AT, env=key)
    assert done.returncode == 0, done.stderr
    assert (box.current(), box.kept()) == (2, [1, 2])


def test_up_ends_with_what_runs_and_the_variable_of_its_key(empty: FleetBox) -> None:
    box, key = empty, {"MY_KEY": CANARY}
    box.machine["secrets"] = {"TOKEN": {"env": "MY_KEY"}}
    box.serve("one", secrets=["TOKEN"])
    box.serve("two", "idle", port=free_port(), autostart=False)
    up = box.invoke("up", *AT, env=key)
    assert up.returncode == 0, up.stderr
    own = f"curl http://127.0.0.1:{box.port}/v1/models"
    assert f'  try:  {own} -H "Authorization: Bearer $MY_KEY"\n' in up.stderr
    assert [line for line in up.stderr.splitlines() if line.startswith("idle: ")] == []
    assert CANARY not in up.stdout + up.stderr
    again = box.invoke("up", *AT, "--service", "idle", env=key)
    assert again.returncode == 0, again.stderr
    told = [line.split(": ")[0] for line in again.stderr.splitlines() if ": http" in line]
    assert [name for name in told if name in {"echo", "idle"}] == ["echo", "idle"]


def test_restart_asks_for_the_model_that_is_in_force(
    empty: FleetBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def ensured(host: Host, need: ModelNeed, port: int, *more: object, **how: object) -> bool:
        asked.append((need.source.name, port))
        return False

    monkeypatch.setattr("inferfleet.models.ollama.ensure_ollama", ensured)
    box = empty
    kind = box.overlay / "services" / "echo.yaml"
    kind.write_text(json.dumps(KIND | {"model": {"bare": "ollama"}}))
    box.serve("one", model="qwen3:0.6b")
    assert box.up().ok
    for word, model, port, wanted in (
        ("one", "qwen3:0.6b", box.port, [("qwen3:0.6b", box.port)]),
        ("one", "qwen3:32b", free_port(), []),
        ("two", "qwen3:32b", box.port, []),
    ):
        box.serve(word, model=model, port=port)
        asked.clear()
        planned = box.session().plan_restart(None)
        assert planned.talk.apply(planned, "restart", silent).ok
        assert (asked, box.current(), box.says()) == (wanted, 1, "one")


def test_restart_is_not_measured_by_what_waits(box: FleetBox) -> None:
    control = f"sh {box.root}/current/control"
    box.serve("one", memory="900g")
    assert box.session().plan_restart(None).plan.problems == ()
    assert box.session().host.run(f"{control} stop").exit == 0
    (refused,) = box.session().plan_restart(None).plan.problems
    assert "echo does not fit" in refused.what
    box.serve("two", memory="900g")
    assert box.session().plan_restart(None).plan.problems == ()


def test_a_token_that_cannot_be_had_is_told_before_a_fetch(empty: FleetBox) -> None:
    kind = empty.overlay / "services" / "echo.yaml"
    kind.write_text(json.dumps(KIND | {"model": {"bare": "hf"}}))
    empty.machine["secrets"] = {"HF_TOKEN": {"env": "NOT_SET_HERE"}}
    empty.serve("one", model="hf:org/tiny")
    plan = empty.invoke("plan", *AT, env={"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert plan.returncode == 2, plan.stderr
    why = "secret HF_TOKEN: the environment variable NOT_SET_HERE is not set"
    assert f"note: {why}: only public models can be fetched" in plan.stdout


def test_restart_where_nothing_is_in_force(empty: FleetBox) -> None:
    refused = empty.invoke("restart", *AT)
    assert (refused.returncode, refused.stdout.split()[-1]) == (1, "box")
    assert "error: nothing is in force on box\nhint: `invoke up` starts services" in refused.stderr


def test_several_machines_are_summed_up_and_errors_name_them(empty: FleetBox) -> None:
    away = {"address": "127.0.0.1", "port": 1, "user": "nobody", "services": {}}
    (empty.overlay / "inventory" / "away.yaml").write_text(json.dumps(away))
    at = (*AT, "--host", "away")
    plan = empty.invoke("plan", *at)
    assert plan.returncode == 1
    assert "Plan: 2 files, 1 service to start." in plan.stdout
    table = plan.stdout[plan.stdout.index("MACHINE") :].splitlines()
    assert table[0] == "MACHINE  RESULT   FETCH  FILES  START  RESTART  STOP  DETAIL"
    assert table[1].split() == ["box", "changes", "0", "2", "1", "0", "0"]
    assert table[2].split()[:2] == ["away", "failed"]
    errors = [line for line in plan.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "away" in errors[0]

    data = json.loads(empty.invoke("plan", *at, "--format", "json").stdout)
    assert data[0]["counts"]["files"] == 2
    assert sorted(data[1]["error"]) == ["code", "hint", "what", "where"]

    status = empty.invoke("status", *at)
    assert status.returncode == 1
    rows = [line.split()[:3] for line in status.stdout.splitlines()]
    assert ["away", "-", "unreachable"] in rows


def test_only_the_secrets_that_are_needed_are_asked_for(empty: FleetBox) -> None:
    empty.machine["secrets"] = {"HF_TOKEN": {"env": "NOT_SET_HERE"}, "TOKEN": {"env": "KEY_HERE"}}
    empty.serve("one", secrets=["TOKEN"])
    refused = empty.invoke("plan", *AT)
    assert refused.returncode == 1
    words = "error: box: secret TOKEN: the environment variable KEY_HERE is not set\nhint: run: "
    assert words in refused.stderr
    assert "HF_TOKEN" not in refused.stderr
    key = {"KEY_HERE": "canary-17aa"}
    assert empty.invoke("plan", *AT, env=key).returncode == 2
    out = str(empty.root.parent / "out")
    rendered = empty.invoke("render", *AT, "--out", out, env=key)
    assert rendered.returncode == 0, rendered.stderr
    row = empty.invoke("up", *AT, "--format", "json")
    assert json.loads(row.stdout)[0]["detail"].startswith("secret TOKEN: the environment")


def test_a_tunnel_to_this_machine_says_so_and_ends(box: FleetBox) -> None:
    done = box.invoke("tunnel", *AT)
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{box.port}/v1" in done.stdout
    assert "there is nothing to forward" in done.stderr
    wrong = box.invoke("tunnel", *AT, "--seconds", "soon")
    assert wrong.returncode == 64
    assert "tunnel: --seconds soon: is not a span of time" in wrong.stderr


def test_nothing_to_show_is_said(empty: FleetBox) -> None:
    empty.services.clear()
    empty.write()
    for task, words in {
        "models.list": "no models",
        "models.prune": "nothing to remove",
        "hostprep.check": "no hostprep in the machine file",
        "status": "no services",
    }.items():
        done = empty.invoke(task, *AT)
        assert (done.returncode, done.stdout) == (0, ""), (task, done)
        assert words in done.stderr
    up = empty.invoke("up", *AT)
    assert up.returncode == 0, up.stderr
    assert "stop:" not in up.stderr
