"""Secrets: they resolve, they do not show, and they vanish from text."""

from __future__ import annotations

import copy
import json
import pickle
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.errors import FleetError, FleetErrors
from inferfleet.secrets import MAX_BYTES, MIN_REDACTED, Origin, Redactor, Secret, Vault, resolve

CANARY = "canary-7f3a"


def machine(**secrets: dict[str, Any]) -> dict[str, Origin]:
    return {name: Origin(**origin) for name, origin in secrets.items()}


def python(code: str) -> dict[str, Any]:
    return {"command": (sys.executable, "-c", code)}


def test_a_secret_does_not_show() -> None:
    secret = Secret(CANARY)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>8}", f"{secret!r}", f"{[secret]}"]
    assert not [text for text in shown if "canary" in text]
    assert secret.reveal() == CANARY
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert not hasattr(secret, "__dict__")


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert {Secret("a"), Secret("a")} == {Secret("a")}
    assert copy.deepcopy({"k": Secret("a")}) == {"k": Secret("a")}
    assert copy.copy(Secret("a")) == Secret("a")


def test_every_source(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from file\r\n")
    wanted = machine(
        A={"env": "A_ENV"}, B={"file": str(file)}, C=python("print('from $HOME; command')")
    )
    found = resolve(wanted, environ={"A_ENV": "from env"})
    assert {name: secret.reveal() for name, secret in found.items()} == {
        "A": "from env",
        "B": "from file",
        "C": "from $HOME; command",
    }


def test_only_the_named_ones_are_fetched() -> None:
    wanted = machine(A={"env": "A"}, B=python("raise SystemExit(1)"))
    assert resolve(wanted, ["A"], environ={"A": "x"}) == {"A": Secret("x")}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ({"env": "NOWHERE"}, "the environment variable NOWHERE is not set"),
        ({"env": "EMPTY"}, "is empty"),
        ({"env": "NUL"}, "holds a NUL character"),
        ({"file": "{tmp}/none"}, "there is no file {tmp}/none"),
        ({"file": "{tmp}"}, "there is no file {tmp}"),
        ({"file": "{tmp}/binary"}, "the file {tmp}/binary is not UTF-8 text"),
        ({"file": "{tmp}/large"}, f"the file {{tmp}}/large is larger than {MAX_BYTES} bytes"),
        ({"file": "{tmp}/empty"}, "is empty"),
        (
            {"command": ["/no/such/program", CANARY]},
            "the command /no/such/program cannot be started: no such file or directory",
        ),
        (
            python(
                f"import sys; print('{CANARY}'); print('{CANARY}', file=sys.stderr); sys.exit(3)"
            ),
            f"the command {sys.executable} failed with exit status 3",
        ),
        (
            python(f"import time; print('{CANARY}', flush=True); time.sleep(60)"),
            f"the command {sys.executable} gave no answer within 0.2 s",
        ),
        (python("import sys; sys.stdout.buffer.write(b'\\xff')"), "is not UTF-8 text"),
    ],
)
def test_what_is_missing_is_named_without_its_value(
    ref: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff" + CANARY.encode())
    (tmp_path / "large").write_text(CANARY * MAX_BYTES)
    (tmp_path / "empty").write_text("\n")
    if "file" in ref:
        ref = {"file": ref["file"].format(tmp=tmp_path)}
    timeout = 0.2 if "sleep" in str(ref) else 60
    with pytest.raises(FleetErrors) as caught:
        resolve(machine(K=ref), environ={"EMPTY": "", "NUL": f"{CANARY}\0"}, timeout=timeout)
    (error,) = caught.value.errors
    assert error.what.startswith("secret K: ")
    assert message.format(tmp=tmp_path) in error.what
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(FleetErrors) as caught:
        resolve(machine(A={"env": "A"}, B={"env": "B"}), ["A", "B", "C"], environ={})
    assert [error.what for error in caught.value.errors] == [
        "secret A: the environment variable A is not set",
        "secret B: the environment variable B is not set",
        "secret C: the machine names no such secret",
    ]


def test_a_vault_fetches_what_is_asked_for_and_that_once(tmp_path: Path) -> None:
    once = tmp_path / "once"
    script = f"[ ! -e {once} ] && : >{once} && echo value"
    origins = {
        "KEY": Origin(command=("sh", "-c", script)),
        "AWAY": Origin(env="NOT_SET_ANYWHERE"),
    }
    hidden: list[Secret] = []
    vault = Vault(origins, hidden.extend)
    assert not once.exists()
    assert ("KEY" in vault, "AWAY" in vault, "other" in vault) == (True, True, False)
    vault.fetch(["KEY", "other"])
    assert vault["KEY"].reveal() == "value"
    assert vault.get("other") is None
    assert hidden == [Secret("value")]
    with pytest.raises(FleetError, match="secret AWAY: the environment variable"):
        vault.get("AWAY")

    # One that fails is not tried again: a program may take a minute, or ask a person.
    tries = tmp_path / "tries"
    failing = Vault({"T": Origin(command=("sh", "-c", f"echo x >>{tries}; exit 3"))}, hidden.extend)
    for _ in range(3):
        with pytest.raises(FleetError, match="secret T"):
            failing.fetch(["T"])
    assert tries.read_text() == "x\n"

    lenient = Vault({"AWAY": origins["AWAY"]}, hidden.extend, lenient=True)
    lenient.fetch(["AWAY"])
    assert "AWAY" not in lenient
    assert lenient.get("AWAY") is None
    assert dict(lenient) == {}


def test_a_command_gets_no_input_and_no_shell() -> None:
    reads = machine(K=python("import sys; print(repr(sys.stdin.read()))"))
    assert resolve(reads)["K"].reveal() == "''"
    words = machine(
        K={"command": [sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id)"]}
    )
    assert resolve(words)["K"].reveal() == "$(id)"


VALUES = st.text(min_size=MIN_REDACTED, max_size=20).filter(
    lambda value: not set("*") & set(value) and value.isprintable()
)


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(st.text(max_size=8), max_size=5))
def test_no_value_survives_redaction(values: list[str], around: list[str]) -> None:
    text = "".join(
        piece for pair in zip(values * 2, [*around, *[""] * 8], strict=False) for piece in pair
    )
    shown = Redactor(map(Secret, values))(text)
    assert not [value for value in values if value in shown]


@settings(deadline=None)
@given(VALUES)
def test_other_spellings_of_a_value_vanish_too(value: str) -> None:
    redact = Redactor([Secret(value)])
    for spelling in (json.dumps(value), shlex.quote(value), quote(value, safe="")):
        assert value not in redact(spelling)
        assert redact(f"<{spelling}>") in ("<***>", '<"***">')


@settings(deadline=None)
@given(st.text(), VALUES)
def test_text_without_the_value_is_left_alone(text: str, value: str) -> None:
    spellings = {value, json.dumps(value)[1:-1], shlex.quote(value), quote(value, safe="")}
    if not any(spelling in text for spelling in spellings):
        assert Redactor([Secret(value)])(text) == text


def test_redaction_by_example() -> None:
    redact = Redactor([Secret("hunter22"), Secret("22 trees"), Secret("abc"), Secret("one\nline2")])
    assert redact("hunter22 trees") == "***"
    assert redact("x=hunter22hunter22;") == "x=******;"
    assert redact("abc is short") == "abc is short"
    assert redact("first line2 last") == "first *** last"
    assert "hunter" not in repr(redact)
    assert Redactor([])("text") == "text"
