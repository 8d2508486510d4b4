"""The gateway as a native unit before the real llama.cpp, on a machine that has nginx."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import ANSWER, QUESTION, Fleet, llama
from testbed.machine import Result, TestMachine
from testbed.session import Testbed
from tools import needs

pytestmark = [pytest.mark.usefixtures("gguf"), needs("nginx", "dpkg")]
KEY, ENGINE_KEY = "canary-sk-e2e-0123456789", "canary-engine-e2e-0123456789"
# The test machine is the same Debian as this one, so what is installed here runs there.
PACKAGES = (
    "nginx", "nginx-common", "libnginx-mod-http-ndk", "libnginx-mod-http-lua", "libluajit2-5.1-2",
    "libpcre2-8-0", "libpcre3", "lua-cjson", "lua-resty-core", "lua-resty-lrucache",
)  # fmt: skip
URL = "http://127.0.0.1:4000"


def install_nginx(machine: TestMachine) -> None:
    """Copy the files of this machine's packages, which is quicker than to install them."""
    listed = subprocess.run(["dpkg", "-L", *PACKAGES], check=True, capture_output=True, text=True)
    files = [
        path
        # /lib is a link to /usr/lib, which nothing may replace.
        for path in dict.fromkeys(re.sub("^/lib/", "/usr/lib/", p) for p in listed.stdout.split())
        if path.startswith(("/usr/sbin", "/usr/lib", "/usr/share/nginx", "/usr/share/lua"))
        and (Path(path).is_file() or Path(path).is_symlink())
    ]
    packed = subprocess.run(
        ["tar", "-cf", "-", "-C", "/", *(path[1:] for path in files)],
        check=True,
        capture_output=True,
    )
    machine.check("tar -xf - -C / && ldconfig", stdin=packed.stdout)


def ask(machine: TestMachine, body: Any, key: str = KEY, more: str = "") -> Result:
    """The answer to a chat, headers in front; the key goes through a file, not through argv."""
    machine.write("/tmp/header", f"Authorization: Bearer {key}\n")
    return machine.run(
        f"curl -sSi {more} -H @/tmp/header {URL}/v1/chat/completions -d @-",
        stdin=json.dumps(body).encode(),
    )


def used(machine: TestMachine) -> int:
    text = machine.check(f"curl -sS {URL}/metrics")
    found = re.search(r'budget_used_tokens\{key="team"\} (\d+)', text)
    return int(found[1]) if found else -1


def test_a_native_gateway(shared_machine: TestMachine, testbed: Testbed, tmp_path: Path) -> None:
    machine, fleet = shared_machine, Fleet(tmp_path, testbed.home)
    install_nginx(machine)
    fleet.host(
        machine,
        {
            "smol": llama(secrets=["LLAMA_API_KEY"]),
            "gate": {
                "kind": "gateway",
                "runtime": "systemd",
                "gateway": {
                    "routes": {
                        "chat": {"to": ["smol"], "system-prompt": {"file": "prompts/p.txt"}}
                    },
                    "keys": {
                        "team": {
                            "secret": "TEAM",
                            "budget": {"tokens": 100000, "per": "total"},
                        }
                    },
                },
            },
        },
        root="/opt/gateway",
        user="admin",
        sudo=True,
        secrets={"LLAMA_API_KEY": {"env": "LLAMA_API_KEY"}, "TEAM": {"env": "TEAM"}},
    )
    prompt = fleet.overlay / "inventory/prompts/p.txt"
    prompt.parent.mkdir()
    prompt.write_text("You are a helpful assistant.\n")
    secrets = {"LLAMA_API_KEY": ENGINE_KEY, "TEAM": KEY}
    done = fleet.invoke("up", "--host", machine.name, "--yes", **secrets)
    assert done.rc == 0, done
    assert "canary" not in done.out + done.err

    # The prompt that the pipeline's tests write themselves comes from the file here.
    question = {**QUESTION, "messages": QUESTION["messages"][1:], "model": "chat"}  # type: ignore[index]
    answer = ask(machine, question).out
    assert answer.startswith("HTTP/1.1 200"), answer
    told = json.loads(answer.partition("\r\n\r\n")[2])
    assert told["choices"][0]["message"]["content"].strip() == ANSWER
    streamed = ask(machine, {**question, "stream": True}, more="-N").out
    assert streamed.rstrip().endswith("data: [DONE]")
    assert '"usage"' not in streamed
    spent = used(machine)
    assert spent == 2 * told["usage"]["total_tokens"]
    assert ask(machine, question, "wrong").out.startswith("HTTP/1.1 401")

    # What was used is kept when the machine restarts the unit, also by force.
    time.sleep(1.2)
    machine.check("systemctl kill --signal KILL gateway-gate")
    machine.check(f"for i in $(seq 100); do curl -sf {URL}/health && exit; sleep 0.2; done; exit 1")
    assert used(machine) == spent

    machine.check("docker stop -t 1 gateway-smol")
    loading = ask(machine, question).out
    assert loading.startswith("HTTP/1.1 429"), loading
    assert "\r\nRetry-After: " in loading
    assert json.loads(loading.partition("\r\n\r\n")[2])["error"]["code"] == "model_loading"

    verified = machine.check(
        "systemd-analyze verify gateway-gate.service 2>&1 | grep -v SysV || true"
    )
    assert verified == ""
    score = machine.check("systemd-analyze security --no-pager gateway-gate.service | tail -n 1")
    found = re.search(r"gateway-gate.service: ([\d.]+)", score)
    assert found is not None, score
    assert float(found[1]) <= 2.5, score
    logs = machine.check("journalctl --no-pager -u gateway-gate; ps axww; cat /proc/*/cmdline")
    files = machine.check(
        f"grep -rlF {shlex.quote(KEY)} /opt/gateway /etc/systemd /var/lib/private || true"
    )
    assert "canary" not in logs
    assert files == ""
    modes = machine.check("stat -c '%a %n' /opt/gateway/current/secrets/gate/*")
    assert {line.split()[0] for line in modes.splitlines()} == {"600"}
    again = fleet.invoke("plan", "--host", machine.name, "--format", "json", **secrets)
    assert again.data[0]["changes"] is True, "the stopped service is to be started"
    assert [step["target"] for step in again.data[0]["steps"]] == ["smol"]
