"""A fleet of one machine, this one, with a small real HTTP service under a temporary root."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ports import free_port

from inferfleet.apply.apply import Outcome
from inferfleet.events import Event, silent
from inferfleet.hosts.host import Host
from inferfleet.observe.observed import Observed
from inferfleet.plan.plan import Goal, Plan
from inferfleet.run.run import Run
from inferfleet.run.session import Planned, Session

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).resolve().parent / "echo_server.py"
MACHINE = "box"
KIND = {
    "summary": "echo of tests",
    "api": "openai",
    "health": {"path": "/health", "loading": [503]},
    "probe": "openai-chat",
    "start-timeout": "60s",
    "options": {"style": "llama-cpp"},
    "secrets": {"TOKEN": {"env": "TOKEN", "api-key": True}},
    "process": {
        "command": [
            [sys.executable, "-S", str(SERVER), "--host", "{bind}", "--port", "{port}"],
            "{options}",
        ]
    },
}


class FleetBox:
    """The overlay folder, the root, and the shortest ways to work with them."""

    def __init__(self, folder: Path) -> None:
        self.overlay = folder / "fleet"
        self.root = folder / "root"
        self.port = free_port()
        self.machine: dict[str, Any] = {"root": str(self.root), "runtime": "process"}
        self.services: dict[str, dict[str, Any]] = {}
        (self.overlay / "services").mkdir(parents=True)
        (self.overlay / "inventory").mkdir()
        (self.overlay / "services" / "echo.yaml").write_text(yaml.safe_dump(KIND))
        self.serve("one")

    def serve(self, word: str, service: str = "echo", mode: str = "good", **more: Any) -> None:
        """Write the machine file with this service changed."""
        known = self.services.get(service, {"kind": "echo", "program": "/bin/true"})
        known = {**known, "port": known.get("port", self.port), **more}
        known["options"] = {"word": word, "mode": mode}
        self.services[service] = known
        self.write()

    def write(self) -> None:
        path = self.overlay / "inventory" / f"{MACHINE}.yaml"
        path.write_text(yaml.safe_dump({**self.machine, "services": self.services}))

    def session(self, host: Host | None = None) -> Session:
        session = Run(overlay=self.overlay, hosts=[MACHINE]).session(MACHINE, lenient=True)
        if host is not None:
            session.host = host
        return session

    def planned(self, goal: Goal | None = None, host: Host | None = None) -> Planned:
        return self.session(host).plan(goal or Goal())

    def plan(self) -> Plan:
        return self.planned().plan

    def up(self, listener: Any = silent, host: Host | None = None) -> Outcome:
        planned = self.planned(host=host)
        return planned.talk.apply(planned, "up", listener)

    def down(self) -> Outcome:
        planned = self.session().plan_down(None)
        return planned.talk.apply(planned, "down", silent)

    def rollback(self, to: int | None = None) -> Outcome:
        planned = self.session().plan_rollback(to)
        return planned.talk.apply(planned, "rollback", silent)

    def observed(self) -> Observed:
        return self.session().observe()

    def says(self, port: int | None = None) -> str | None:
        """The word the service answers with, None when nothing answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{port or self.port}/v1/chat/completions",
            data=b"{}",
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                body = json.load(answer)
        except OSError:
            return None
        word: str = body["choices"][0]["message"]["content"]
        return word

    def current(self) -> int:
        link = self.root / "current"
        return int(os.readlink(link).rpartition("/")[2]) if link.is_symlink() else 0

    @property
    def state(self) -> Path:
        return self.root / ".inferbase"

    def kept(self) -> list[int]:
        return sorted(int(p.name) for p in (self.state / "generations").iterdir())

    def leftovers(self) -> list[str]:
        """Traces of an unfinished run."""
        names = [".current.new", ".current.back", ".inferbase/journal", ".inferbase/lock"]
        found = [name for name in names if os.path.lexists(self.root / name)]
        return found + [p.name for p in (self.state / "generations").glob(".*")]

    def history(self) -> list[tuple[str, int, int]]:
        """(event, from, to) of every line."""
        lines = (self.state / "history").read_text().splitlines()
        return [(f[2], int(f[3]), int(f[4])) for f in (line.split("\t") for line in lines)]

    def invoke(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=REPOSITORY,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"INFERBASE_OVERLAY": str(self.overlay), "HOME": str(self.root.parent)}
        return {**os.environ, **own, **(extra or {})}

    def processes(self) -> list[int]:
        """Processes that have anything of this box on their command line."""
        marks = (str(self.root).encode(), f"\0{self.port}\0".encode())
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    line = (entry / "cmdline").read_bytes()
                    if any(mark in line for mark in marks):
                        found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Stop what runs, by its own control, then by force."""
        control = self.root / "current" / "control"
        if control.exists():
            subprocess.run(["sh", str(control), "remove"], capture_output=True, timeout=60)
        for _ in range(500):
            left = self.processes()
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


class Recorder:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def steps(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "step"]
