"""A gateway that cannot start: keys of one value, and what nginx says on its way down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gateway_files import folders, machine, release

from inferfleet.errors import USAGE, FleetError
from inferfleet.load.load import load
from inferfleet.release.failure import find_cause
from inferfleet.render.render import render
from inferfleet.secrets import Secret


def test_keys_of_one_value_are_a_mistake(tmp_path: Path) -> None:
    keys = {"a": {"secret": "ALPHA"}, "b": {"secret": "VLLM_API_KEY"}, "c": {"secret": "BETA"}}
    fleet = load(folders(json.dumps(machine({"keys": keys})), tmp_path)).fleet
    secrets = {"ALPHA": "canary", "BETA": "canary", "VLLM_API_KEY": "x"}
    with pytest.raises(FleetError) as caught:
        render(fleet, "m", {name: Secret(value) for name, value in secrets.items()})
    error = caught.value
    assert error.what == "m: gate: the keys ALPHA and BETA have the same value"
    assert error.code == USAGE
    assert "canary" not in str(error) + error.hint
    # `status`, `health` and `down` go without the secrets that cannot be had.
    render(fleet, "m", {name: Secret("") for name in secrets})


# What follows such a line, whatever it was.
REST = ["stack traceback:", "\t[C]: in function 'error'"]
# Lines of real logs, but for the port that only root may take.
CAUSES = [
    ("[emerg] 31#31: bind() to 127.0.0.1:4000 failed (98: Address already in use)",
     "something else listens on 127.0.0.1:4000"),
    ("[emerg] 31#31: bind() to 10.9.9.9:4000 failed (99: Cannot assign requested address)",
     "10.9.9.9:4000 is no address of this machine"),
    ("[emerg] 31#31: bind() to 0.0.0.0:80 failed (13: Permission denied)",
     "may not listen on 0.0.0.0:80"),
    ('[emerg] 4#4: dlopen() "/usr/share/nginx/modules/ngx_http_lua_module.so" failed (/usr/share',
     "nginx has no /usr/share/nginx/modules/ngx_http_lua_module.so"),
    ('[emerg] 4#4: unknown directive "lua_package_path" in /x/nginx.conf:31', "knows no Lua"),
    ("[error] 4#4: init_by_lua error: ...x/gateway_config.lua:4: module 'cjson.safe' not found:",
     "the Lua module cjson.safe is not there"),
    (("[error] 4#4: init_by_lua error: ...x/gateway_limits.lua:184: /var/lib/x/budgets.json is "
     "damaged: repair it"), "/var/lib/x/budgets.json is damaged"),
    (("[error] 4#4: init_by_lua error: ...config.lua:53: GATEWAY_SERVICE_KEY_1 cannot stand in an "
     "HTTP header"), "a key that a service asks for cannot stand in an HTTP header"),
    ("[error] 4#4: init_by_lua error: ...config.lua:43: GATEWAY_KEYS has fewer keys than",
     "nginx says: ...config.lua:43: GATEWAY_KEYS has fewer keys"),
    ('[emerg] 4#4: mkdir() "/x/body" failed (2: No such file or directory)',
     'nginx says: mkdir() "/x/body" failed'),
]  # fmt: skip


@pytest.mark.parametrize(("line", "says"), CAUSES)
def test_why_it_does_not_start(tmp_path: Path, line: str, says: str) -> None:
    failures = release(tmp_path, machine()).failures["gate"]
    cause = find_cause(["[notice] x", f"2026/11/21 22:42:15 {line}", *REST], failures)
    assert cause is not None
    assert says in cause.says
    assert cause.hint
    assert not re.search(r"\{[a-z]+\}", cause.says + cause.hint)
    assert find_cause(["[warn] service e is down: refused"], failures) is None
