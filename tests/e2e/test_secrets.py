"""Secrets: canaries that must reach the services and nothing else."""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e.fault_fleet import FaultFleet, in_force, settle
from e2e.fleet import REPOSITORY, ROOT, Ran, inspect, llama
from testbed.machine import TestMachine
from testbed.session import Testbed

# Characters that need care in every format a value passes through on its way.
AWKWARD = "a'b\"c$HOME`d`#%n\\ "


# Where Docker keeps what a container was made from; only root can go there.
# The last is there as long as a health check is being started.
DOCKER = (
    "/run/containerd/", "/run/docker/", "/var/lib/containerd/", "/var/lib/docker/",
    "/tmp/runc-process",
)  # fmt: skip


class Canaries:
    """Three secrets from an environment variable, a file and a command, each with a needle."""

    def __init__(self, folder: Path) -> None:
        self.needles = [secrets.token_hex(8) for _ in range(3)]
        self.key, held, printed = (f"{AWKWARD}{needle}" for needle in self.needles)
        self.file = folder / "held"
        self.script = folder / "printed"
        for path, value in ((self.file, held), (self.script, printed)):
            path.write_text(value + "\n")
            path.chmod(0o600)

    @property
    def refs(self) -> dict[str, object]:
        return {
            "LLAMA_API_KEY": {"env": "CANARY_KEY"},
            "HELD": {"file": str(self.file)},
            "PRINTED": {"command": ["cat", str(self.script)]},
        }

    def new_key(self) -> str:
        """Change the API key; the old one."""
        old = self.key
        self.needles.append(secrets.token_hex(8))
        self.key = AWKWARD + self.needles[-1]
        return old

    def found_in(self, text: str) -> bool:
        return any(needle in text for needle in self.needles)


class Watch(threading.Thread):
    """Reads every command line of this machine; the test machines' processes are among them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(entry.read_bytes())
                except OSError:
                    continue

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    @property
    def text(self) -> str:
        return b"\n".join(self.seen).decode(errors="replace")


class Vault:
    """A machine whose service wants a key, and everything that was ever printed about it."""

    def __init__(self, machine: TestMachine, home: Path, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.canaries = Canaries(folder)
        self.fleet = FaultFleet(folder, home)
        self.printed: list[str] = []
        self.want()

    def want(self, kind: str = "llama-cpp", **changes: object) -> None:
        service = llama(kind=kind, secrets=list(self.canaries.refs), **changes)
        self.fleet.host(self.machine, {"llama": service}, secrets=self.canaries.refs)

    def cli(self, *words: str) -> Ran:
        """Run a task on the machine and keep what it prints."""
        done = self.fleet.cli(*words, "--host", self.machine.name, CANARY_KEY=self.canaries.key)
        self.printed += [done.out, done.err]
        return done


@pytest.fixture(scope="module")
def vault(
    testbed: Testbed, gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vault]:
    machine = testbed.machine()
    made = Vault(machine, testbed.home, tmp_path_factory.mktemp("secrets"))
    with Watch() as watch:
        done = made.fleet.invoke(
            "up", "--host", machine.name, "--yes", CANARY_KEY=made.canaries.key
        )
    assert done.rc == 0, done
    made.printed += [done.out, done.err]
    assert f"root={ROOT}" in watch.text  # it has seen our programs on the machine
    assert not made.canaries.found_in(watch.text)
    yield made
    testbed.destroy(machine)


def code(machine: TestMachine, key: str | None) -> str:
    """The status that the API gives to one question."""
    header = f"-H {shlex.quote(f'Authorization: Bearer {key}')}" if key else ""
    body = '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}'
    return machine.check(
        f"curl -s -o /dev/null -w '%{{http_code}}' {header} -d {shlex.quote(body)} "
        "http://127.0.0.1:8080/v1/chat/completions"
    )


def test_the_service_wants_the_key(vault: Vault) -> None:
    """All three values arrive unharmed; readiness and health use the key."""
    environment = inspect(vault.machine, "inference-llama")["Config"]["Env"]
    held = vault.canaries.file.read_text().rstrip("\n")
    printed = vault.canaries.script.read_text().rstrip("\n")
    assert f"LLAMA_API_KEY={vault.canaries.key}" in environment
    assert f"HELD={held}" in environment
    assert f"PRINTED={printed}" in environment
    assert code(vault.machine, None) == "401"
    assert code(vault.machine, "wrong") == "401"
    health = vault.cli("health")
    assert health.rc == 0, health
    without = vault.fleet.cli("health", "--host", vault.machine.name)
    assert without.rc == 3, without
    assert "401" in without.out


def test_nothing_printed_holds_a_secret(vault: Vault) -> None:
    """Every task, also as JSON, and an `up` that ends in a traceback."""
    vault.want(env={"EDIT": "1"})
    out = vault.folder / "rendered"
    for words in (
        ["plan"], ["plan", "--format", "json"], ["status"], ["status", "--format", "json"],
        ["health", "--format", "json"], ["logs"], ["history"], ["endpoints"], ["doctor"],
        ["inventory.show"], ["inventory.list"], ["render", "--out", str(out)],
    ):  # fmt: skip
        done = vault.cli(*words)
        assert "Traceback" not in done.err, done
    run = vault.fleet.begin(
        "up", "--host", vault.machine.name, "--yes", stop_at=("step", "start"),
        CANARY_KEY=vault.canaries.key,
    )  # fmt: skip
    crashed = run.reached().crash().ended()
    assert "Traceback" in crashed.err
    assert "a defect that nobody expects" in crashed.err
    vault.printed += [crashed.out, crashed.err]
    settle(vault.machine)
    assert vault.cli("up", "--yes").rc == 0
    assert not vault.canaries.found_in("\n".join(vault.printed))
    assert len(vault.printed) > 20
    for file in out.rglob("*"):
        if file.is_file() and vault.canaries.found_in(file.read_text()):
            assert (file.stat().st_mode & 0o777, file.suffix) == (0o600, ".env")


def test_a_log_that_tells_the_secret_is_redacted(vault: Vault) -> None:
    kind = yaml.safe_load((REPOSITORY / "services/llama-cpp.yaml").read_text())
    kind["compose"]["entrypoint"] = ["/bin/sh", "-c", 'echo "key <$LLAMA_API_KEY>"; exit 3', "sh"]
    folder = vault.fleet.overlay / "services"
    folder.mkdir(exist_ok=True)
    (folder / "teller.yaml").write_text(yaml.safe_dump(kind))
    vault.want("teller")
    done = vault.cli("up", "--yes")
    assert done.rc == 1, done
    assert "key <***>" in done.err
    assert not vault.canaries.found_in(done.out + done.err)
    vault.want()
    assert vault.cli("up", "--yes").rc == 0


def test_only_private_files_hold_a_secret(vault: Vault) -> None:
    """On the machine: 0600 in our directory, nowhere else but in Docker's own root-only records."""
    needles = " ".join(f"-e {needle}" for needle in vault.canaries.needles)
    holding = vault.machine.check(
        f"find / -xdev -type f -exec grep -lF {needles} {{}} + 2>/dev/null; "
        f"grep -rlF {needles} /run /tmp {ROOT} /var/lib/docker/containers 2>/dev/null; true"
    )
    ours = sorted({path for path in holding.split("\n") if path.startswith(ROOT)})
    others = [
        path for path in holding.split()
        if not path.startswith((ROOT, *DOCKER))
    ]  # fmt: skip
    assert others == []
    assert {path.rpartition("/")[2] for path in ours} == {"llama.env"}
    modes = vault.machine.check(f"stat -c '%a %U' {shlex.join(ours)}").split("\n")
    assert set(modes) - {""} == {"600 ops"}
    assert not vault.canaries.found_in(vault.machine.read(f"{ROOT}/current/compose.yaml"))


def test_nothing_here_holds_a_secret(vault: Vault) -> None:
    """Neither the checkout nor the consumer's folder nor the user's home."""
    looked = 0
    for top in (REPOSITORY, vault.fleet.overlay, vault.fleet.home):
        for file in top.rglob("*"):
            if ".venv" in file.parts or not file.is_file() or file.stat().st_size > 1 << 22:
                continue
            assert not vault.canaries.found_in(file.read_bytes().decode("latin-1")), file
            looked += 1
    assert looked > 100


def test_changing_the_secret_replaces_the_service(vault: Vault) -> None:
    before = in_force(vault.machine)
    container = inspect(vault.machine, "inference-llama")["Id"]
    old = vault.canaries.new_key()
    plan = vault.cli("plan")
    assert plan.rc == 2, plan
    assert "env/llama.env" in plan.out
    assert "replace llama" in plan.out
    as_json = vault.cli("plan", "--format", "json")
    assert as_json.rc == 2
    assert not vault.canaries.found_in(plan.out + plan.err + as_json.out + as_json.err)
    with Watch() as watch:
        done = vault.cli("up", "--yes")
    assert done.rc == 0, done
    assert not vault.canaries.found_in(watch.text)
    assert in_force(vault.machine) > before
    assert inspect(vault.machine, "inference-llama")["Id"] != container
    assert code(vault.machine, old) == "401"
    assert code(vault.machine, vault.canaries.key) == "200"
    assert vault.cli("plan").rc == 0
    assert not vault.canaries.found_in("\n".join(vault.printed))


def test_a_secret_that_cannot_be_had(vault: Vault) -> None:
    """Said before anything is asked of the machine; looking needs no secrets."""
    name = vault.machine.name
    for verb in ("plan", "up"):
        done = vault.fleet.cli(verb, "--host", name)
        assert done.rc not in {0, 2}, done
        assert "secret LLAMA_API_KEY: the environment variable CANARY_KEY is not set" in done.err
    assert vault.fleet.cli("status", "--host", name).rc == 0
