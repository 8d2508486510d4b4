"""Each benchmark's code in a tiny form: that it measures what it says, never how long it takes."""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tools import needs

from benchmarks import engine, fanout, hostprep, local, rendering, startup
from benchmarks.figures import Figure, table
from benchmarks.measure import BenchmarkError, Sample, in_turns, median_ratio, run
from benchmarks.servers import SSHD, farm
from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots

REPOSITORY = Path(__file__).resolve().parents[2]


@needs(SSHD)
def test_fanout_brings_twelve_files_and_then_has_nothing_to_change(tmp_path: Path) -> None:
    with farm(tmp_path, 1) as servers:
        tools = fanout.Tools(servers, with_peers=False)
        servers.empty(fanout.OURS)
        assert len(tools.files) == 12
        tools.plan(servers.names, expect=(2,))
        tools.apply(servers.names)
        brought = servers.root(servers.names[0], fanout.OURS) / "root" / "current"
        top = tools.payload / servers.names[0]
        for path in tools.files:
            assert (brought / path.relative_to(top)).read_bytes() == path.read_bytes()
        tools.plan(servers.names)  # raises unless it ends with 0
        assert tools.ssh(servers.names).seconds > 0


@needs(SSHD)
def test_hostprep_looks_at_what_this_machine_has(tmp_path: Path) -> None:
    settings = hostprep.as_it_is(6)
    assert [len(found) for found in settings.values()] == [4, 2]
    with farm(tmp_path, 1) as servers:
        tools = hostprep.Tools(servers)
        tools.wants(settings)
        # 2: nothing is persisted; any other value would be told by a plan of live changes.
        assert tools.task("check", servers.names, expect=(2,)).seconds > 0
        tools.wants(hostprep.everything())
        tools.task("plan", servers.names, expect=(2,))
        assert tools.ssh(servers.names).seconds > 0


def test_rendering_counts_the_files_of_all_machines(tmp_path: Path) -> None:
    rendering.write_inventory(tmp_path, 2)
    fleet = load_fleet(Roots(REPOSITORY, tmp_path))
    assert [len(fleet.machines[name].services) for name in ("m0000", "m0001")] == [5, 5]
    assert rendering.render_all(tmp_path) > 2 * 5


def test_startup_compares_the_two_listings() -> None:
    figures, details = startup.measure(1)
    assert figures[0].bound == 1.5
    assert set(details) == {"empty", "ours"}


def test_local_has_a_valid_machine_of_its_own(tmp_path: Path) -> None:
    made = local.Local(tmp_path)
    fleet = load_fleet(Roots(REPOSITORY, tmp_path / "overlay"))
    machine = fleet.machines[local.MACHINE]
    assert machine.local
    assert machine.root == str(made.root)
    shipped = fleet.machines["local"].services["smollm2"]
    assert machine.services[local.SERVICE].model == shipped.model


class Completions(BaseHTTPRequestHandler):
    """Generates two tokens fewer than asked for when the model is called lazy."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = body["max_tokens"] - 2 * (body["model"] == "lazy")
        data = json.dumps({"usage": {"completion_tokens": count}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_engines_are_asked_for_the_same_tokens(tmp_path: Path) -> None:
    made = engine.Fleet(tmp_path, runtime="process")
    fleet = load_fleet(Roots(REPOSITORY, tmp_path / "overlay"))
    assert fleet.machines[engine.NAME].services[engine.SERVICE].port == made.port
    with ThreadingHTTPServer(("127.0.0.1", 0), Completions) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert engine.burst(url, "good").seconds > 0
        with pytest.raises(BenchmarkError, match="not 32 each"):
            engine.burst(url, "lazy")
        server.shutdown()
    with pytest.raises(BenchmarkError, match="does not complete"):
        engine.burst(url, "good")


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the reason')"]
    with pytest.raises(BenchmarkError, match="ended with 1:\nthe reason"):
        run(command, env=os.environ, cwd=tmp_path)
    assert run(command, env=os.environ, cwd=tmp_path, expect=(1,)).peak > 1 << 20


def test_turns_change_their_order() -> None:
    order: list[str] = []

    def action(name: str) -> Sample:
        order.append(name)
        return Sample(float(len(order)), 0.0, 0)

    samples = in_turns({name: lambda name=name: action(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abcbcacab"
    assert [len(taken) for taken in samples.values()] == [3, 3, 3]


def test_the_ratio_is_taken_round_by_round() -> None:
    ours = [Sample(seconds, 0.0, 0) for seconds in (1.0, 10.0, 2.0)]
    theirs = [Sample(seconds, 0.0, 0) for seconds in (3.0, 20.0, 2.0)]
    assert median_ratio(ours, theirs) == 2.0


def test_a_bound_is_kept_or_not() -> None:
    figures = [
        Figure("small", 1.0, "s", 2.0),
        Figure("slow", 3.0, "s", 2.0),
        Figure("many", 3.0, "times", 4.0, at_most=False),
        Figure("told", 3.0, "s"),
    ]
    assert [figure.met for figure in figures] == [True, False, False, None]
    lines = table(figures).splitlines()
    assert lines[0].split() == ["figure", "target", "measured", "met?"]
    assert lines[3].split() == ["many", ">=", "4", "times", "3", "times", "NO"]
