"""A gateway rendered from a machine file and run by the real nginx, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fake_engine import Behaviour, Engine
from ports import free_port

from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots
from inferfleet.release.release import Release
from inferfleet.render.render import render, write_release
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine
from inferfleet.secrets import Secret

REPOSITORY = Path(__file__).resolve().parent.parent
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SYSTEM = 'Answer in one word. "Really" \\ \N{SNOWMAN}\nAlways.'
USER = [{"role": "user", "content": "Hi"}]
KEY = "canary-sk-alpha-0123456789"
OTHER_KEY = "canary-sk-beta-9876543210"
SECRETS = {"ALPHA": KEY, "BETA": OTHER_KEY, "LLAMA_API_KEY": "canary-engine-key"}


def engine(port: int, served: str, model: Any = "/models/a.gguf", **more: Any) -> dict[str, Any]:
    """A service of a machine file that listens on the port."""
    return {
        "kind": "llama-cpp",
        "runtime": "process",
        "program": "/bin/true",
        "port": port,
        "model": model,
        "served-name": served,
        **more,
    }


# Each request on a connection of its own, so that every worker gets some.
CLIENT = httpx.Client(
    verify=False, trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
)


@dataclass
class Box:
    """A gateway that runs. root: the machine's; url: where it listens."""

    root: Path
    url: str
    process: subprocess.Popen[bytes]
    release: Release

    @property
    def log(self) -> str:
        return (self.root / "nginx.log").read_text()

    def post(self, body: Any, key: str | None = KEY, path: str = "/v1/chat/completions") -> Any:
        """The answer to one request."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return CLIENT.post(self.url + path, json=body, headers=headers)

    def chat(self, model: str = "m", key: str | None = KEY, **more: Any) -> Any:
        """The answer to a chat of one message."""
        messages = [{"role": "user", "content": "Hi"}]
        return self.post({"model": model, "messages": messages, **more}, key)

    def metric(self, start: str) -> float:
        """The sum of the figures whose line begins so."""
        lines = CLIENT.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def stop(self) -> None:
        """End nginx as systemd does."""
        self.process.terminate()
        self.process.wait(10)


def machine(root: Path, port: int, services: dict[str, Any], gateway: Any) -> dict[str, Any]:
    """A machine file with a gateway as a process."""
    own: dict[str, Any] = {"kind": "gateway", "runtime": "process", "program": NGINX, "port": port}
    if gateway is not None:
        own["gateway"] = gateway
    return {
        "root": str(root),
        "secrets": {name: {"env": name} for name in SECRETS},
        "services": {**services, "gateway": own},
    }


@cache
def _ours() -> Fleet:
    return load_fleet(Roots(REPOSITORY))


@contextmanager
def gateway(
    folder: Path,
    services: dict[str, Any],
    settings: Any = None,
    prompts: dict[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Box]:
    """Render the gateway and run nginx until the context ends; folder may be used again."""
    root, inventory = folder / "root", folder / "inventory"
    port = port or free_port()
    made = Machine.model_validate(machine(root, port, services, settings))
    for name, text in (prompts or {}).items():
        (inventory / name).parent.mkdir(parents=True, exist_ok=True)
        (inventory / name).write_text(text)
    release = render(
        replace(_ours(), machines={"box": made}, inventory_dirs=(inventory,)),
        "box",
        {name: Secret(value) for name, value in SECRETS.items()},
    )
    current = root / "current"
    write_release(release, current)
    (root / ".inferbase/run/gateway").mkdir(parents=True, exist_ok=True)
    with run_rendered(current, root / "nginx.log") as process:
        box = Box(root, f"http://127.0.0.1:{port}", process, release)
        wait_up(box)
        yield box


@contextmanager
def run_rendered(current: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command line of the rendered process, with its secrets and nothing else around it."""
    env = {"PATH": os.environ["PATH"]}
    secrets = current / "env/gateway.env"
    if secrets.exists():
        env.update(line.split("=", 1) for line in secrets.read_text().splitlines())
    with log.open("ab") as out:
        process = subprocess.Popen(
            [NGINX, "-e", "stderr", "-c", str(current / "files/gateway/nginx.conf")],
            env=env, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_up(box: Box) -> None:
    """Wait until the gateway is healthy."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and box.process.poll() is None:
        try:
            if CLIENT.get(f"{box.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise RuntimeError(f"the gateway does not start: {box.log}")


class Bed:
    """Two engines for model m, one each for solo, keyed and prompted; one gateway before them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        names = ("one", "two", "solo", "keyed", "alias")
        self.engines = {name: stack.enter_context(Engine(name)) for name in names}
        services = {
            "one": engine(self.engines["one"].port, "served/m"),
            "two": engine(self.engines["two"].port, "served/m"),
            "solo": engine(
                self.engines["solo"].port, "solo", "/models/b.gguf", **{"start-timeout": 4}
            ),
            "keyed": engine(
                self.engines["keyed"].port, "keyed", "/models/c.gguf", secrets=["LLAMA_API_KEY"]
            ),
            "alias": engine(
                self.engines["alias"].port,
                "aliased",
                model={
                    "source": "hf:x/y/z.gguf",
                    "alias": "team/hl",
                    "extra": {"system_prompt.txt": "From the alias.\n"},
                },
            ),
        }
        settings = {
            "routes": {
                "m": {"to": ["one", "two"], "aliases": ["m-latest"]},
                "solo": {"to": ["solo"], "timeout": 1},
                "keyed": {"to": ["keyed"]},
                "prompted": {"to": ["solo"], "system-prompt": {"file": "prompts/p.txt"}},
                "hl": {"to": ["alias"], "system-prompt": {"alias": "team/hl"}},
            },
            "keys": {
                "alpha": {"secret": "ALPHA"},
                "beta": {"secret": "BETA", "models": ["m-latest"]},
            },
        }
        self.box = stack.enter_context(
            gateway(folder, services, settings, {"prompts/p.txt": f"{SYSTEM}\n"})
        )

    def calm(self) -> None:
        """Every engine as it should be, and known to be."""
        for one in self.engines.values():
            one.behaviour = Behaviour()
            one.seen.clear()
        eventually(lambda: "service_up" in metrics(self.box) and not down(self.box))


def metrics(box: Box) -> str:
    return CLIENT.get(f"{box.url}/metrics").text


def down(box: Box) -> list[str]:
    return [
        line for line in metrics(box).splitlines() if "service_up" in line and line.endswith(" 0")
    ]


def eventually(true: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wrong(answer: Any) -> dict[str, Any]:
    """The error of an answer, which must have the API's form."""
    found = answer.json()
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert isinstance(found["error"]["message"], str)
    return found["error"]  # type: ignore[no-any-return]


def limited(folder: Path, port: int, **limits: Any) -> Any:
    keys = {"alpha": {"secret": "ALPHA", **limits}, "beta": {"secret": "BETA"}}
    return gateway(folder, {"e": engine(port, "m")}, {"keys": keys})
