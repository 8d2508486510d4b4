"""The life of a model on two real machines of one site: declared, fetched once, copied, pruned."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import Fleet, ask, llama, tree
from testbed.machine import TestMachine
from testbed.session import Testbed
from unit.models_servers import Hub, Server, serving

PROMPT = "You speak like a pirate."
SSHD = "/etc/ssh/sshd_config.d/testbed.conf"
KEYS = "/home/ops/.ssh/authorized_keys"
SMALL = bytes(range(256)) * 40_000
_NUMBERS = itertools.count(1)


class Site:
    """Two machines that may log in at each other, a root of its own on both, and a hub."""

    def __init__(self, machines: list[TestMachine], fleet: Fleet, server: Server) -> None:
        self.m1, self.m2 = machines
        self.fleet, self.server = fleet, server
        number = next(_NUMBERS)
        self.root, self.port = f"/opt/inference/site{number}", 8100 + number
        self.container = f"site{number}-llama"
        self.models = f"{self.root}/models"
        self.file = f"{self.models}/team/pirate/smol.gguf"
        self.hub = Hub(server, server, f"org/tiny{number}")
        self.declare()

    def declare(self, **keys: Any) -> None:
        """inventory/models/tiny.yaml, and both machine files."""
        folder = self.fleet.overlay / "inventory" / "models"
        folder.mkdir(exist_ok=True)
        model = {
            "source": f"hf:{self.hub.name}/smol.gguf",
            "served-name": "tiny",
            "aliases": {"team/pirate": {"system_prompt.txt": PROMPT}},
            **keys,
        }
        (folder / "tiny.yaml").write_text(yaml.safe_dump(model))
        model = {"source": "tiny", "alias": "team/pirate"}
        service = llama(model=model, served_name=None, autostart=False, port=self.port)
        service["start-timeout"] = "20s"
        for machine in (self.m1, self.m2):
            self.fleet.host(machine, {"llama": service}, site="lab", root=self.root)

    def publish(self, data: bytes) -> str:
        """A commit with this model; its id."""
        files = {"smol.gguf": data, "README.md": str(len(data)).encode()}
        return self.hub.publish(files, large=("smol.gguf",))

    def invoke(self, *words: str) -> Any:
        return self.fleet.invoke(*words, HF_ENDPOINT=self.server.url)

    def on(self, machines: tuple[TestMachine, ...], task: str, *words: str) -> Any:
        hosts = [word for machine in machines for word in ("--host", machine.name)]
        return self.invoke(task, *hosts, *words, "--format", "json")

    def both(self, task: str, *words: str) -> Any:
        return self.on((self.m1, self.m2), task, *words)

    def downloads(self, data: bytes) -> int:
        """How often a large file was really fetched from the hub."""
        return len(self.server.asked(f"/blob/{hashlib.sha256(data).hexdigest()}"))

    def held(self, machine: TestMachine) -> str:
        """The checksum of what a machine's alias leads to."""
        return machine.check(f"sha256sum <{self.file}").split()[0]


def state(ran: Any, machine: TestMachine) -> dict[str, Any]:
    (row,) = [r for r in ran.data if r["machine"] == machine.name and r["model"] == "tiny"]
    return row


def left_behind(machine: TestMachine) -> str:
    """Whatever a copy may have left: keys, programs, locks."""
    return machine.check(
        "find /home/ops/.ssh /dev/shm /tmp /run/user -name 'inferbase-copy*' 2>/dev/null; "
        f"grep inferbase-copy {KEYS} || true"
    )


@pytest.fixture(scope="module")
def pair(testbed: Testbed) -> Iterator[list[TestMachine]]:
    made = testbed.make(2)
    for machine in made:
        # As on ordinary machines; the testbed's own file comes from outside and is read-only.
        machine.check(
            "install -d -o ops -g ops -m 700 /home/ops/.ssh && "
            f"install -o ops -g ops -m 600 /srv/testbed/identity/authorized_keys {KEYS} && "
            f"sed -i /AuthorizedKeysFile/d {SSHD} && systemctl reload ssh"
        )
    yield made
    for machine in made:
        testbed.destroy(machine)


@pytest.fixture
def site(testbed: Testbed, pair: list[TestMachine], tmp_path: Path) -> Iterator[Site]:
    gateway = pair[0].address.rpartition(".")[0] + ".1"
    with serving(gateway) as server:
        yield Site(pair, Fleet(tmp_path, testbed.home), server)
    for machine in pair:
        machine.check("iptables -F INPUT")


def test_one_download_for_a_site_and_a_copy_from_machine_to_machine(site: Site, gguf: Path) -> None:
    m1, m2 = site.m1, site.m2
    data = gguf.read_bytes()
    first = site.publish(data)
    keys = m1.read(KEYS)
    listed = site.both("update-models", "--check")
    assert listed.rc == 2, listed
    assert [state(listed, m)["from"] for m in (m1, m2)] == ["hub", m1.name]
    assert state(listed, m2)["fetch_bytes"] == len(data)
    assert state(listed, m2)["left_bytes"] == state(listed, m2)["free_bytes"] - len(data)
    assert not m1.exists(site.models)

    done = site.both("update-models")
    assert done.rc == 0, done
    assert [state(done, m)["verdict"] for m in (m1, m2)] == ["updated", "updated"]
    assert site.downloads(data) == 1
    assert "through this machine" not in done.err
    for machine in (m1, m2):
        assert site.held(machine) == hashlib.sha256(data).hexdigest()
        assert machine.read(f"{site.models}/team/pirate/system_prompt.txt") == PROMPT
        assert left_behind(machine) == ""
    assert m1.read(KEYS) == keys

    # A service that runs gets the new files, the one that does not run is left alone.
    started = site.invoke("up", "--host", m1.name, "--service", "llama")
    assert started.rc == 0, started
    newer = data + b"\0"
    second = site.publish(newer)
    updated = site.both("update-models")
    assert updated.rc == 0, updated
    assert site.downloads(newer) == 1
    row = state(updated, m1)
    assert (row["installed"], row["detail"]) == (second, "restarted llama")
    assert state(updated, m2)["detail"] == ""
    assert m2.check("docker ps -q") == ""
    inside = m1.check(f"docker exec {site.container} sha256sum /models/team/pirate/smol.gguf")
    assert inside.split()[0] == hashlib.sha256(newer).hexdigest()
    assert "Paris" in ask(m1, site.port)

    # Only what nothing uses goes, and the figure is what the disk gets back.
    rows = {(r["machine"], r["revision"]): r["state"] for r in site.both("models.list").data}
    assert rows == {
        (m1.name, second): "current", (m1.name, first): "old",
        (m2.name, second): "current", (m2.name, first): "old",
    }  # fmt: skip
    taken = int(m2.check(f"du -sb {site.models}").split()[0])
    pruned = site.on((m2,), "models.prune")
    assert pruned.rc == 0, pruned
    (gone,) = pruned.data
    assert (gone["what"], gone["revision"], gone["result"]) == ("old", first, "removed")
    assert gone["frees_bytes"] == len(data)
    freed = taken - int(m2.check(f"du -sb {site.models}").split()[0])
    assert 0 <= freed - len(data) < 100_000  # its directory and its record, too

    m2.check(f"printf x | dd of={site.file} bs=1 seek=4096 conv=notrunc")
    checked = site.both("models.verify")
    assert checked.rc == 1, checked
    assert state(checked, m1)["verdict"] == "right"
    assert "smol.gguf: expected" in state(checked, m2)["detail"]


def test_up_fetches_once_for_a_site(site: Site, gguf: Path) -> None:
    m1, m2 = site.m1, site.m2
    data = gguf.read_bytes()
    site.publish(data)
    done = site.both("up", "--service", "llama")
    assert done.rc == 0, done
    assert site.downloads(data) == 1
    assert f"waits for {m1.name}" in done.err or f"waits for {m2.name}" in done.err
    for machine in (m1, m2):
        assert site.held(machine) == hashlib.sha256(data).hexdigest()
        assert "Paris" in ask(machine, site.port)
        assert left_behind(machine) == ""
    assert site.both("plan", "--service", "llama").rc == 0

    # One that has the model gives it to one that has lost it.
    m2.check(f"docker rm -f {site.container} && rm -rf {site.models}")
    again = site.both("up", "--service", "llama")
    assert again.rc == 0, again
    assert site.downloads(data) == 1
    assert site.held(m2) == hashlib.sha256(data).hexdigest()
    assert site.both("down").rc == 0


def test_machines_that_cannot_reach_each_other_copy_through_here(site: Site) -> None:
    m1, m2 = site.m1, site.m2
    site.publish(SMALL)
    m1.accept_ssh_only_from(m1.address.rpartition(".")[0] + ".1")
    done = site.both("update-models")
    assert done.rc == 0, done
    row = state(done, m2)
    assert row["from"] == f"{m1.name}, through here"
    assert row["through_here_bytes"] == 2 * len(SMALL)
    assert site.downloads(SMALL) == 1
    assert "go through this machine" in done.err
    assert site.held(m2) == hashlib.sha256(SMALL).hexdigest()
    assert left_behind(m1) + left_behind(m2) == ""
    assert ".part" not in tree(m2, site.models)


@pytest.mark.slow
def test_a_login_that_lets_no_new_key_in_is_found_out_by_the_copy(site: Site) -> None:
    m1, m2 = site.m1, site.m2
    site.publish(SMALL)
    m1.check(f"echo AuthorizedKeysFile /srv/testbed/identity/authorized_keys >>{SSHD}")
    m1.check("systemctl reload ssh")
    try:
        done = site.both("update-models")
    finally:
        m1.check(f"sed -i /AuthorizedKeysFile/d {SSHD} && systemctl reload ssh")
    assert done.rc == 0, done
    assert state(done, m2)["from"] == m1.name
    assert f"{m2.name} cannot copy by itself" in done.err
    assert "Permission denied" in done.err
    assert site.downloads(SMALL) == 1
    assert site.held(m2) == hashlib.sha256(SMALL).hexdigest()
    assert left_behind(m1) + left_behind(m2) == ""


@pytest.mark.slow
def test_back_to_files_that_work(site: Site, gguf: Path) -> None:
    m1 = site.m1
    data = gguf.read_bytes()
    first = site.publish(data)
    started = site.invoke("up", "--host", m1.name, "--service", "llama")
    assert started.rc == 0, started
    # Files with which the service does not get ready: it gets the ones before back.
    broken = site.publish(b"this is no model")
    failed = site.on((m1,), "update-models")
    assert failed.rc == 1, failed
    row = state(failed, m1)
    assert (row["verdict"], row["installed"]) == ("failed", first)
    assert row["detail"].startswith("put back, because")
    assert "Paris" in ask(m1, site.port)
    assert site.held(m1) == hashlib.sha256(data).hexdigest()

    # A revision that the machine has kept asks the hub for no file.
    site.declare(revision=first)
    asked = len(site.server.requests)
    back = site.on((m1,), "update-models", "--no-restart")
    assert back.rc == 0, back
    assert state(back, m1)["installed"] == first
    later = [r.path for r in site.server.requests[asked:]]
    assert [path for path in later if "/api/" not in path] == []
    # Nothing reads the branch's directory any more: the alias leads to the pinned revision, whose
    # files are the same, so that only the broken ones free anything.
    pruned = site.on((m1,), "models.prune")
    assert pruned.rc == 0, pruned
    results = {row["revision"]: (row["what"], row["frees_bytes"]) for row in pruned.data}
    assert results == {broken: ("old", len(b"this is no model")), first: ("unused", 0)}
    assert site.held(m1) == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
def test_a_copy_goes_on_where_it_was_cut(site: Site) -> None:
    m1, m2 = site.m1, site.m2
    site.publish(SMALL)
    assert site.on((m1,), "update-models").rc == 0
    link = m1.check(f"find {site.models} -type l -path '*/hf/*'").strip()
    store = f"{link.rpartition('/')[0]}/{m1.check(f'readlink {link}').strip()}"
    # A first half with other bytes: only a copy that goes on behind it ends up damaged.
    part = f"install -d -o ops -g ops {store} && head -c 5000000 /dev/zero >{store}/smol.gguf.part"
    m2.check(f"{part} && chown -R ops:ops {site.root}")
    done = site.both("update-models")
    assert done.rc == 0, done
    assert "smol.gguf was damaged by an interruption; it is fetched anew" in done.err
    assert "through this machine" not in done.err
    assert site.held(m2) == hashlib.sha256(SMALL).hexdigest()
