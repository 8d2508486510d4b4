"""Real vLLM whose engine process stands still: /health goes on saying 200, `health` does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e.fleet import Ran
from engines.test_vllm import KEY, OPTIONS, Place, place

__all__ = ["place"]  # a fixture

pytestmark = pytest.mark.vllm

LONG = json.dumps(
    {"model": "tiny", "prompt": "Once", "max_tokens": 1000, "ignore_eos": True, "temperature": 0}
)


def health(place: Place, *words: str) -> tuple[int, dict[str, Any], Ran]:
    done = place.invoke("health", "--format", "json", *words)
    (row,) = done.data
    print(row)
    return done.rc, row, done


def test_an_engine_that_hangs_behind_a_good_health_url(place: Place) -> None:
    options = {**OPTIONS, "max-num-seqs": 1}
    place.write(options=options, health={"deadline": "2s"})
    up = place.invoke("up")
    assert up.rc == 0, up
    assert health(place)[:1] == (0,)

    # One sequence at a time: ours waits behind these, and the counters show that they advance.
    assert place.ask("/v1/completions", json.loads(LONG))[0] == 200
    place.machine.write("/srv/long.json", LONG)
    ask = (
        f"while curl -sf -o /dev/null -H 'Authorization: Bearer {KEY}' -H 'Content-Type: "
        "application/json' -d @/srv/long.json http://127.0.0.1:5005/v1/completions; do :; done"
    )
    place.machine.write("/srv/load", f"#!/bin/sh\nfor i in 1 2 3 4 5 6; do ({ask}) & done; wait\n")
    place.machine.check("nohup sh /srv/load >/dev/null 2>&1 & sleep 1")
    rc, row, _ = health(place)
    assert (rc, row["verdict"]) == (0, "busy"), row
    assert row["running"] >= 2
    assert row["tokens_per_second"] > 0

    place.machine.check("pkill -STOP -f 'VLLM::Engine[C]ore'")
    assert place.ask("/health", key="")[0] == 200
    rc, row, _ = health(place)
    assert (rc, row["verdict"]) == (3, "stuck"), row
    assert "has advanced" in row["detail"], row
    assert place.ask("/health", key="")[0] == 200

    rc, row, done = health(place, "--restart", "--at-most", "1", "--wait", "8m")
    assert (rc, row["verdict"]) == (0, "healthy"), done
    down = place.invoke("down")
    assert down.rc == 0, down
    assert place.processes() == []
