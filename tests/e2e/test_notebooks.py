"""JupyterLab and MLflow as S3 runs them: real ones, native, under units that we rendered."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import Fleet, Ran
from testbed import notebooks, vllm
from testbed.machine import TestMachine
from testbed.session import Testbed, unavailable
from testbed.shell import run

from inferfleet.services.reached import allowed_hosts, origins

pytestmark = pytest.mark.slow
TOKEN = "canary-token-4f1b"
DATABASE = "sqlite:////var/lib/lab-tracking/canary-password-77.db"
ROOT = "/opt/inference/lab"
# Both import a lot, and the machine that runs the tests may be busy.
SLOW = "20m"


class Lab:
    """One machine that sees the environment, with both services in its machine file."""

    def __init__(self, machine: TestMachine, fleet: Fleet, programs: Path) -> None:
        self.machine, self.fleet, self.programs = machine, fleet, programs
        services = {
            "tracking": {
                "kind": "mlflow",
                "program": str(programs / "mlflow"),
                "port": 5006,
                "secrets": ["MLFLOW_BACKEND_STORE_URI"],
                "options": {"workers": 1},
                "start-timeout": SLOW,
            },
            "jupyter": {
                "kind": "jupyter",
                "program": str(programs / "jupyter-lab"),
                "start-timeout": SLOW,
            },
        }
        fleet.host(
            machine,
            services,
            root=ROOT,
            runtime="systemd",
            user="admin",
            sudo=True,
            models="/srv/testbed/models",
            secrets={
                "JUPYTER_TOKEN": {"env": "LAB_TOKEN"},
                "MLFLOW_BACKEND_STORE_URI": {"env": "LAB_DATABASE"},
            },
        )

    def invoke(self, task: str, *words: str, database: str = DATABASE) -> Ran:
        done = self.fleet.invoke(
            task,
            "--host",
            self.machine.name,
            *words,
            timeout=1300,
            LAB_TOKEN=TOKEN,
            LAB_DATABASE=database,
        )
        assert TOKEN not in done.out + done.err
        assert "canary-password" not in done.out + done.err
        return done

    def curl(self, url: str, *words: str) -> tuple[int, str]:
        """(status, body) of a request made on the machine."""
        line = shlex.join(["curl", "-sS", "-m", "60", "-w", "\n%{http_code}", *words, url])
        body, _, status = self.machine.check(line).rpartition("\n")
        return int(status), body

    def jupyter(self, path: str, *words: str, token: str | None = TOKEN) -> tuple[int, str]:
        header = ["-H", f"Authorization: token {token}"] if token is not None else []
        return self.curl(f"http://127.0.0.1:8889{path}", *header, *words)

    def mlflow(self, path: str, body: object | None = None) -> Any:
        words = ["-H", "Content-Type: application/json", "-d", json.dumps(body)] if body else []
        status, text = self.curl(f"http://127.0.0.1:5006/api/2.0/mlflow/{path}", *words)
        assert status == 200, text
        return json.loads(text)

    def postgresql(self, port: int) -> str:
        """Start a database server with one user, one password; the URL of its database."""
        bin, data = notebooks.postgresql(self.programs.parent), "/var/tmp/lab-database"
        self.machine.check(
            f"install -d -o admin {data} && echo canary-password-77 >/var/tmp/word && "
            "chown admin /var/tmp/word && runuser -u admin -- "
            f"{bin}/initdb -D {data} -U mlflow -A scram-sha-256 --pwfile=/var/tmp/word -E UTF8 && "
            f"systemd-run --unit lab-database --uid admin {bin}/postgres -D {data} "
            f"-p {port} -k /tmp -c listen_addresses=127.0.0.1 && timeout 60 sh -c "
            f"'until {bin}/pg_isready -q -h 127.0.0.1 -p {port}; do sleep 0.2; done' && "
            f"PGPASSWORD=canary-password-77 {bin}/createdb -h 127.0.0.1 -p {port} -U mlflow lab"
        )
        # The driver is named: which one is taken else depends on the version of SQLAlchemy.
        return f"postgresql+psycopg2://mlflow:canary-password-77@127.0.0.1:{port}/lab"

    def ask(self, url: str, question: str) -> list[str]:
        """Rows of a database."""
        psql = notebooks.postgresql(self.programs.parent) / "psql"
        plain = url.replace("+psycopg2", "")
        return self.machine.check(shlex.join([str(psql), "-At", "-c", question, plain])).split()

    def show(self, service: str, *names: str) -> list[str]:
        """Properties of a unit."""
        wanted = " ".join(f"-p {name}" for name in names)
        return self.machine.check(f"systemctl show --value {wanted} lab-{service}").split()


NAMES = """
import importlib.util, json, pathlib, sys
import mlflow.environment_variables as variables
path = pathlib.Path(variables.__file__).with_name("server") / "security_utils.py"
spec = importlib.util.spec_from_file_location("security_utils", path)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
hosts, origins = real.get_allowed_hosts_from_env(), real.get_allowed_origins_from_env()
found = [real.is_allowed_host_header(hosts, name) for name in sys.argv[1:]]
pages = [real.should_block_cors_request(f"http://{n}", "POST", origins) for n in sys.argv[1:]]
print(json.dumps([found, pages]))
"""


def test_mlflow_answers_to_the_names_that_it_is_told_of() -> None:
    """Its own reading of them, without its server, which takes half a minute to be imported."""
    reached = ("10.0.0.9", "lab.example.org", "fd00::4")
    told = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": allowed_hosts("tracking", reached),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins(reached, 8007) or "",
    }
    good = ["10.0.0.9:8007", "lab.example.org:8007", "[fd00::4]:8007", "localhost:9", "tracking:5"]
    bad = ["10.0.0.10:8007", "lab.example.com:8007", "10.0.0.9.example.com:8007", "[fd00::5]:8007"]
    python = notebooks.build() / "bin" / "python"
    done = run(python, "-c", NAMES, *good, *bad, env={**os.environ, **told})
    found, pages = json.loads(done)
    assert found == [True] * len(good) + [False] * len(bad)
    # Its own pages, and those of a tunnel, may change something; neighbours have no pages.
    assert pages == [False] * 4 + [True] * (1 + len(bad))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := unavailable():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    environment = notebooks.build()
    binds = {environment: str(environment), vllm.base(environment): str(vllm.base(environment))}
    folder = tmp_path_factory.mktemp("lab")
    bed = Testbed(folder, binds=binds)
    try:
        machine = bed.machine()
        vllm.install_libraries(machine)
        yield Lab(machine, Fleet(folder, bed.home), environment / "bin")
    finally:
        bed.close()


def test_ready_guarded_and_kept(lab: Lab) -> None:
    fresh = lab.invoke("up")
    assert fresh.rc == 0, fresh
    assert fresh.err.count("ready after") == 2

    # Nothing without the token, or with another; everything with it.
    for path in ("/api/status", "/api/contents", "/metrics", "/api/kernels"):
        assert lab.jupyter(path, token=None)[0] == 403, path
        assert lab.jupyter(path, token="wrong")[0] == 403, path
        assert lab.jupyter(path)[0] == 200, path
    assert lab.jupyter("/lab", token=None)[0] in {302, 403}
    assert lab.jupyter("/lab?token=", token=None)[0] in {302, 403}
    assert lab.jupyter("/lab")[0] == 200
    outside = f"http://{lab.machine.address}:8889/api"
    assert lab.machine.run(f"curl -s -m 5 {outside}").rc != 0

    # Neither secret is where others can read it, and nobody runs as root.
    argv = lab.machine.check("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    journal = lab.machine.check("journalctl --no-pager -u lab-jupyter -u lab-tracking")
    units = lab.machine.check("cat /etc/systemd/system/lab-*.service")
    for text in (argv, journal, units, lab.machine.check("cat /etc/passwd")):
        assert TOKEN not in text
        assert "canary-password" not in text
    found = lab.machine.check(
        f"grep -rlF -e {TOKEN} -e canary-password {ROOT} | xargs stat -Lc %a:%U"
    )
    assert set(found.split()) == {"600:root"}
    for service in ("jupyter", "tracking"):
        status = lab.machine.check(f"cat /proc/{lab.show(service, 'MainPID')[0]}/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(facts["Uid"].split()[0]) > 1000
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0

    # The notebook knows its neighbour.
    environ = f"/proc/{lab.show('jupyter', 'MainPID')[0]}/environ"
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:5006" in lab.machine.check(
        f"tr '\\0' '\\n' <{environ}"
    )
    again = lab.invoke("plan")
    assert again.rc == 0, again
    health = lab.invoke("health", "--format", "json")
    assert health.rc == 0, health
    assert {row["service"] for row in health.data} == {"jupyter", "tracking"}

    # What both were given is there after a crash, a restart and a start of the machine.
    made = lab.mlflow("experiments/create", {"name": "kept"})["experiment_id"]
    run = lab.mlflow("runs/create", {"experiment_id": made, "start_time": 1})["run"]["info"]
    lab.mlflow(
        "runs/log-metric", {"run_id": run["run_id"], "key": "x", "value": 2.5, "timestamp": 1}
    )
    assert run["artifact_uri"].startswith("mlflow-artifacts:/")
    artifact = f"http://127.0.0.1:5006/api/2.0/mlflow-artifacts/artifacts/{made}/a.txt"
    assert lab.curl(artifact, "-X", "PUT", "--data-binary", "kept too")[0] == 200
    note = json.dumps({"type": "file", "format": "text", "content": "a note"})
    assert lab.jupyter("/api/contents/note.txt", "-X", "PUT", "-d", note)[0] == 201

    before = lab.show("jupyter", "MainPID")[0]
    lab.machine.check("systemctl kill --signal KILL lab-jupyter lab-tracking")
    waited = lab.invoke("health", "--wait", "900")
    assert waited.rc == 0, waited
    assert lab.show("jupyter", "MainPID")[0] != before
    assert [lab.show(service, "NRestarts") for service in ("jupyter", "tracking")] == [["1"], ["1"]]
    restarted = lab.invoke("restart")
    assert restarted.rc == 0, restarted
    lab.machine.reboot()
    waited = lab.invoke("health", "--wait", "900")
    assert waited.rc == 0, waited

    kept = lab.mlflow(f"runs/get?run_id={run['run_id']}")["run"]["data"]["metrics"]
    assert [(metric["key"], metric["value"]) for metric in kept] == [("x", 2.5)]
    assert lab.curl(artifact) == (200, "kept too")
    status, body = lab.jupyter("/api/contents/note.txt")
    assert (status, json.loads(body)["content"]) == (200, "a note")


def test_a_wrong_token_is_not_ready(lab: Lab) -> None:
    """Health asks with the key of the machine file: an old one in the service is noticed."""
    lab.machine.check(
        f"printf other >{ROOT}/current/secrets/jupyter/JUPYTER_TOKEN && "
        "systemctl restart lab-jupyter && "
        "timeout 60 sh -c 'until curl -sf http://127.0.0.1:8889/api; do sleep 0.2; done'"
    )
    found = lab.invoke("health", "--service", "jupyter")
    assert found.rc == 3, found


def test_an_empty_token_is_refused(lab: Lab) -> None:
    """JupyterLab takes an empty token for none at all."""
    done = lab.fleet.invoke("plan", "--host", lab.machine.name, LAB_TOKEN="", LAB_DATABASE=DATABASE)
    assert done.rc != 0
    assert "JUPYTER_TOKEN: is empty" in done.err


def test_experiments_in_postgresql(lab: Lab) -> None:
    url = lab.postgresql(5433)
    moved = lab.invoke("up", "--service", "tracking", database=url)
    assert moved.rc == 0, moved
    made = lab.mlflow("experiments/create", {"name": "in-postgresql"})["experiment_id"]
    lab.mlflow("runs/create", {"experiment_id": made, "start_time": 1})
    assert lab.ask(url, "select name from experiments where experiment_id = " + made) == [
        "in-postgresql"
    ]
    assert lab.ask(url, f"select count(*) from runs where experiment_id = {made}") == ["1"]

    # Without its database MLflow still says /health: ready asks what comes out of the database.
    lab.machine.check("systemctl stop lab-database")
    assert lab.invoke("health", "--service", "tracking", database=url).rc == 3
    assert "canary-password" not in lab.machine.check("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    back = lab.invoke("up", "--service", "tracking")
    assert back.rc == 0, back
