"""Strict YAML: scalars, places, refusals, and the agreement of PyYAML's two parsers."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.load.yaml12 import MAX_BYTES, MAX_DEPTH, MAX_NODES, read, scalar
from inferfleet.schema.nodes import Document, Node

PARSERS = [pytest.param(False, id="c"), pytest.param(True, id="python")]

SCALARS = [
    ("", None),
    ("~", None),
    ("null", None),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("0", 0),
    ("-1", -1),
    ("70000", 70000),
    ("-0", "-0"),
    ("+1", "+1"),
    ("0600", "0600"),
    ("0o600", "0o600"),
    ("0x1F", "0x1F"),
    ("1_000", "1_000"),
    ("22:22", "22:22"),
    ("2026-11-21", "2026-11-21"),
    ("1.5", 1.5),
    ("-0.25", -0.25),
    ("1e3", 1000.0),
    ("1E-3", 0.001),
    ("1.", "1."),
    (".5", ".5"),
    (".inf", ".inf"),
    (".nan", ".nan"),
    ("1e999", "1e999"),
    ("1.2.3", "1.2.3"),
    ("\u0661", "\u0661"),
    ("9" * 400, "9" * 400),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("pure", PARSERS)
@pytest.mark.parametrize("text", [text for text, _ in SCALARS])
def test_quoted_scalars_are_always_text(text: str, pure: bool) -> None:
    assert plain(read(f"a: '{text}'\n".encode(), "f", pure=pure)) == {"a": text}


@settings(deadline=None)
@given(st.text())
def test_what_is_not_text_is_json(text: str) -> None:
    value = scalar(text)
    if isinstance(value, bool | None):
        assert text.lower() in ("", "~", "null", "true", "false")
    elif not isinstance(value, str):
        assert json.loads(text) == value
    else:
        assert value == text


@settings(deadline=None)
@given(st.integers(-(10**200), 10**200) | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives(number: float) -> None:
    assert scalar(repr(number)) == number
    assert type(scalar(repr(number))) is type(number)


EMPTY = (
    "f:1:1: is empty\nhint: write keys, or `null` to remove our file of the same name, or delete it"
)
REFUSED = [
    ("", EMPTY),
    ("# nothing but a comment\n", EMPTY),
    ("---\n", EMPTY),
    ("a: 1\nb: 2\na: 3\n", "f:3:1: the key a is there twice, first on line 1"),
    ("a:\n  b: 1\n  'b': 2\n", "f:3:3: the key b is there twice, first on line 2"),
    ("a: {b: 1, b: 2}\n", "f:1:11: the key b is there twice, first on line 1"),
    ("1: x\n", "f:1:1: a key should be text, found a whole number\nhint: put it in quotes"),
    ("true: x\n", "f:1:1: a key should be text, found true or false\nhint: put it in quotes"),
    ("? [a]\n: b\n", "f:1:3: a key should be text, found a list"),
    ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins here\nhint: one file, one document"),
    (
        "a: !!str 1\n",
        "f:1:4: the tag tag:yaml.org,2002:str cannot be used\nhint: remove it; quotes make text",
    ),
    ("a: !x 1\n", "f:1:4: the tag !x cannot be used\nhint: remove it; quotes make text"),
    (
        "a: &x {b: 1}\nc:\n  <<: *x\n",
        "f:3:3: merge keys cannot be used\nhint: write the keys out",
    ),
    ("a: *x\n", "f:1:4: the alias names no anchor before it"),
    ("a: &x [*x]\n", "f:1:8: the alias names no anchor before it"),
    (
        "a: &x 1\nb: &x 2\n",
        "f:2:4: an anchor of this name exists already\nhint: give it another name",
    ),
    (
        "a: 1\n\tb: 2\n",
        "f:2:1: a tab cannot stand here\nhint: use spaces",
    ),
    ("%YAML 1.1\n---\na: no\n", "f:1:1: a YAML directive cannot be used\nhint: remove the % line"),
    ("[a]\n", "f:1:1: should hold keys with values, found a list"),
    ("just text\n", "f:1:1: should hold keys with values, found text"),
    ("a: b\nc: x\0y\n", "f:2:5: holds the character U+0000, which YAML text cannot hold"),
    (
        "a: x\u2028y\n",
        (
            "f:1:5: holds the character U+2028, which YAML text cannot hold\n"
            'hint: write it as an escape in double quotes, such as "\\u2028"'
        ),
    ),
    ('a:\n  - "x\\0y"\n', "f:2:5: holds a NUL or half a character, which no text can hold"),
]


@pytest.mark.parametrize("pure", PARSERS)
@pytest.mark.parametrize(("text", "error"), REFUSED)
def test_refusals(text: str, error: str, pure: bool) -> None:
    assert [str(found) for found in read(text.encode(), "f", pure=pure).errors] == [error]


ACCEPTED = [
    ("---\na: 1\n...\n", {"a": 1}),
    ("\ufeffa: 1\n", {"a": 1}),
    ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ("a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}),
    ("'1': x\n'<<': y\n", {"1": "x", "<<": "y"}),
    ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ("a: {b: , c: [~, no]}\n", {"a": {"b": None, "c": [None, "no"]}}),
    ('a: "x\\ty\\u2028"\n', {"a": "x\ty\u2028"}),
    ("a: 'b\tc'\n", {"a": "b\tc"}),
]


@pytest.mark.parametrize("pure", PARSERS)
@pytest.mark.parametrize(("text", "data"), ACCEPTED)
def test_accepted(text: str, data: object, pure: bool) -> None:
    assert plain(read(text.encode(), "f", pure=pure)) == data


@pytest.mark.parametrize("pure", PARSERS)
@pytest.mark.parametrize("text", ["null\n", "~", "--- Null # gone\n"])
def test_null_alone_is_no_mistake(text: str, pure: bool) -> None:
    document = read(text.encode(), "f", pure=pure)
    assert (document.root, document.errors, document.null) == (None, [], True)


SYNTAX = [
    ("a: [1\nb: 2\n", (2, 2)),
    ("a: b: c\n", (1, 5)),
    ("a: 'x\n", (2, 1)),
    ("a: @x\n", (1, 4)),
    ("- a\nb: 1\n", (2, 1)),
    ("\u00e9\u20ac: [1\nb: 2\n", (2, 2)),
]


@pytest.mark.parametrize("pure", PARSERS)
@pytest.mark.parametrize(("text", "place"), SYNTAX)
def test_syntax_errors_name_their_place(text: str, place: tuple[int, int], pure: bool) -> None:
    (error,) = read(text.encode(), "f", pure=pure).errors
    assert (error.where.line, error.where.column) == place
    assert error.what.startswith("is not valid YAML: ")
    assert error.code == 64


@pytest.mark.parametrize("pure", PARSERS)
def test_bytes_that_are_not_utf8_name_their_place(pure: bool) -> None:
    (error,) = read("a: 1\n\u00e9: ".encode() + b"\xff\n", "f", pure=pure).errors
    assert str(error) == "f:2:4: is not UTF-8 text\nhint: save it as UTF-8"


@pytest.mark.parametrize("pure", PARSERS)
def test_places_of_keys_and_values(pure: bool) -> None:
    root = read(b"a: 1\nb:\n  c: [x, {d: y}]\n  e:\n", "f", pure=pure).root
    assert root is not None
    places = {
        ("a",): ("f:1:4", "f:1:1"),
        ("b",): ("f:3:3", "f:2:1"),
        ("b", "c"): ("f:3:6", "f:3:3"),
        ("b", "c", 0): ("f:3:7", "f:3:7"),
        ("b", "c", 1, "d"): ("f:3:14", "f:3:11"),
        ("b", "e"): ("f:4:3", "f:4:3"),
        ("b", "missing"): ("f:2:1", "f:2:1"),
        ("missing",): ("f:1:1", "f:1:1"),
    }
    found = {path: (str(root.where(path)), str(root.where(path, key=True))) for path in places}
    assert found == places


@pytest.mark.parametrize("pure", PARSERS)
def test_a_tab_in_an_unquoted_text_is_refused(pure: bool) -> None:
    (error,) = read(b"a: b\tc\n", "f", pure=pure).errors
    assert error.what == "a tab cannot stand here"


def bomb(levels: int) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines).encode()


@pytest.mark.parametrize("pure", PARSERS)
def test_limits(pure: bool) -> None:
    (error,) = read(bomb(30), "f", pure=pure).errors
    assert error.what == f"holds more than {MAX_NODES} values once its aliases are written out"
    assert read(bomb(3), "f", pure=pure).errors == []

    deep = MAX_DEPTH + 1
    (error,) = read(f"a: {'[' * deep}{']' * deep}".encode(), "f", pure=pure).errors
    assert error.what == f"is nested more than {MAX_DEPTH} deep"
    assert read(f"a: {'[' * 9}{']' * 9}".encode(), "f", pure=pure).errors == []

    (error,) = read(b"#" * (MAX_BYTES + 1), "f", pure=pure).errors
    assert error.what == f"is larger than {MAX_BYTES} bytes"
    assert read(b"a:\n" + b"#" * (MAX_BYTES - 3), "f", pure=pure).errors == []


def test_all_mistakes_of_a_file_are_found() -> None:
    document = read(b"a: !x 1\na: 2\n3: 4\nb: *y\n", "f")
    assert [error.where.line for error in document.errors] == [1, 2, 3, 4]


TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff"
    )
    | st.sampled_from("\t\n :#-'\"{}[],&*!|>%@`"),
    max_size=30,
)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
MAPPINGS = st.dictionaries(TEXT.filter(lambda text: text != "<<"), DATA, max_size=5)


@settings(deadline=None)
@given(MAPPINGS)
def test_json_is_read_as_itself(data: dict[str, object]) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1).encode()
    assert plain(read(text, "f")) == data
    assert plain(read(text, "f", pure=True)) == data


@settings(max_examples=60, deadline=None)
@given(MAPPINGS, st.sampled_from([None, "'", '"', "|"]), st.booleans())
def test_the_parsers_agree_on_values_and_places(
    data: dict[str, object], style: str | None, flow: bool
) -> None:
    text = yaml.dump(data, default_style=style, default_flow_style=flow, allow_unicode=True)
    fast, slow = read(text.encode(), "f"), read(text.encode(), "f", pure=True)
    assert shape(fast.root) == shape(slow.root)
    assert [str(error) for error in fast.errors] == [str(error) for error in slow.errors]


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab:- \n,[]{}'\"#&*!|>?01."), max_size=40))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    for pure in (False, True):
        document = read(text.encode(), "f", pure=pure)
        if document.root is None:
            assert bool(document.errors) != document.null
        for error in document.errors:
            assert error.where.line >= 1
            assert error.where.line <= text.count("\n") + 1


def plain(document: Document) -> object:
    assert document.errors == []
    assert document.root is not None
    return document.root.plain()


def shape(node: Node | None) -> object:
    if node is None:
        return None
    if isinstance(node.value, dict):
        inner: object = [(key, shape(item)) for key, item in node.value.items()]
    elif isinstance(node.value, list):
        inner = [shape(item) for item in node.value]
    else:
        inner = (type(node.value), node.value)
    return (node.spot, node.key, inner)
