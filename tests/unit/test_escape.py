"""Any text comes back as one value from the parser of its destination."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import render_cases
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet import escape
from inferfleet.errors import FleetError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NASTY = st.text("ab \"'\\$%{}\n\r\t`#:-,;&*!|>=~\u2028\u0085", max_size=20)
ANY = TEXT | NASTY
SHELL = settings(max_examples=40, deadline=None)


@given(ANY)
def test_yaml_text(text: str) -> None:
    assert yaml.safe_load(f"key: {escape.yaml_string(text)}\nnext: 1\n") == {"key": text, "next": 1}


@given(ANY)
def test_yaml_text_is_one_line(text: str) -> None:
    assert len(escape.yaml_string(text).splitlines()) == 1


@given(
    st.recursive(
        ANY | st.booleans() | st.none() | st.integers() | st.floats(-1e6, 1e6, width=32),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
        max_leaves=6,
    )
)
def test_yaml_values(value: object) -> None:
    assert yaml.safe_load(escape.yaml_value(value)) == value


def test_yaml_refuses_what_it_cannot_say() -> None:
    with pytest.raises(TypeError):
        escape.yaml_value({1, 2})


def interpolate(text: str) -> str:
    """What docker compose makes of a value: $$ is $, anything else after $ is a variable."""
    pieces = text.split("$$")
    assert not any("$" in piece for piece in pieces), "a variable"
    return "$".join(pieces)


@given(ANY)
def test_compose_text(text: str) -> None:
    assert interpolate(yaml.safe_load(escape.compose_value(text))) == text


def systemd_words(line: str) -> Iterator[str]:
    """Words of a unit setting as systemd.syntax and systemd.service describe them."""
    escapes = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
    escapes |= {"\\": "\\", '"': '"', "'": "'", "s": " "}
    at, line = 0, line.strip(" \t")
    while at < len(line):
        word, quote = "", ""
        while at < len(line) and (quote or line[at] not in " \t"):
            char = line[at]
            at += 1
            if char == "\\":
                kind = line[at]
                at += 1
                if kind == "x":
                    word += chr(int(line[at : at + 2], 16))
                    at += 2
                else:
                    word += escapes[kind]
            elif quote and char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                word += char
        assert not quote, "a quote is open at the end"
        yield specifiers(word)
        while at < len(line) and line[at] in " \t":
            at += 1


def specifiers(word: str) -> str:
    pieces = word.split("%%")
    assert not any("%" in piece for piece in pieces), "a specifier"
    return "%".join(pieces)


@given(st.lists(ANY, min_size=1, max_size=5))
def test_systemd_words(words: list[str]) -> None:
    line = " ".join(escape.systemd_word(word) for word in words)
    assert "\n" not in line
    assert "\r" not in line
    assert not line.endswith("\\")
    assert list(systemd_words(line)) == words


@given(ANY)
def test_systemd_environment(text: str) -> None:
    if re.search(r"[\x01-\x08\x0b-\x1f\x7f-\x9f]", text):
        with pytest.raises(FleetError, match="control character"):
            escape.systemd_environment("NAME", text)
    else:
        line = escape.systemd_environment("NAME", text)
        assert list(systemd_words(line)) == [f"NAME={text}"]


@given(ANY.map(lambda text: "/" + re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)))
def test_systemd_mount(path: str) -> None:
    word = escape.systemd_mount(path, "/target")
    source, target = re.fullmatch(r'"((?:[^"\\]|\\.)*)":"((?:[^"\\]|\\.)*)"', word).groups()  # type: ignore[union-attr]
    assert specifiers(re.sub(r"\\(.)", r"\1", source)) == path
    assert target == "/target"


@pytest.mark.parametrize("path", ["name", "/a\nExecStartPre=/bin/false", "/a\x01"])
def test_systemd_mount_refuses(path: str) -> None:
    with pytest.raises(FleetError, match="cannot be mounted"):
        escape.systemd_mount(path, "/target")


LOADER = re.search(
    r"^load_env\(\) \{\n.*?^\}\n",
    (render_cases.REPOSITORY / "templates/process/run.j2").read_text(),
    re.DOTALL | re.MULTILINE,
)


@SHELL
@given(st.lists(ANY, min_size=1, max_size=20))
def test_process_env_file(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    """Read by the run script's own function, which evaluates nothing."""
    assert LOADER is not None
    file: Path = tmp_path_factory.mktemp("env") / "env"
    names = [f"VALUE_{index}" for index in range(len(values))]
    lines = (escape.sh_env(name, text) for name, text in zip(names, values, strict=True))
    file.write_bytes("".join(lines).encode())
    script = f"set -u\nenv_file=$1\n{LOADER[0]}load_env\nexec env -0"
    done = subprocess.run(["sh", "-c", script, "sh", file], capture_output=True, check=True)
    assert done.stderr == b""
    found = dict(pair.split("=", 1) for pair in done.stdout.decode().split("\0") if pair)
    assert [found[name] for name in names] == values


@SHELL
@given(st.lists(ANY, min_size=1, max_size=20))
def test_sh_words(values: list[str]) -> None:
    from shlex import quote

    script = f"printf '%s\\0' {' '.join(map(quote, values))}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == values


def dotenv(line: str) -> str:
    """The value of one line NAME="..." of an env file of docker compose."""
    quoted = re.fullmatch(r'[A-Z]+="((?:[^"\\$]|\\.)*)"\n', line, re.DOTALL)
    assert quoted is not None, line
    named = {"n": "\n", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: named.get(match[1], match[1]), quoted[1])


@given(ANY)
def test_compose_env_file(text: str) -> None:
    if text.startswith("\n"):
        with pytest.raises(FleetError, match="begins with a line break"):
            escape.env_file("NAME", text)
    else:
        assert dotenv(escape.env_file("NAME", text)) == text


def modelfile_commands(text: str) -> list[tuple[str, str]]:
    """A Modelfile as Ollama reads it: a value ends at a line end where its quotes are closed."""
    commands, at = [], 0
    while at < len(text):
        name, _, rest = text[at:].partition(" ")
        value, ended = "", False
        for char in rest:
            if char in "\r\n" and closed(value):
                ended = True
                break
            value += char
        assert ended, "no end of a value"
        at += len(name) + 1 + len(value) + 1
        commands.append((name, unquoted(value)))
    return commands


def closed(value: str) -> bool:
    value = value.strip()
    if not value.startswith('"""'):
        return True
    return len(value) >= 6 and value.endswith('"""')


def unquoted(value: str) -> str:
    value = value.strip()
    return value[3:-3] if value.startswith('"""') else value


@given(
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
    | st.text('"a \n\t', max_size=12)
)
def test_modelfile(text: str) -> None:
    if re.search(r'"""\s*[\r\n]', text):
        with pytest.raises(FleetError, match="a line that ends with"):
            escape.modelfile_value(text)
        return
    lines = f"SYSTEM {escape.modelfile_value(text)}\nFROM x\n"
    assert modelfile_commands(lines) == [("SYSTEM", text), ("FROM", "x")]


@pytest.mark.parametrize("text", ["a\u00a0b", "a\x07b", 'say """\nFROM evil'])
def test_modelfile_refuses(text: str) -> None:
    with pytest.raises(FleetError):
        escape.modelfile_value(text)
