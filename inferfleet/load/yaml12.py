"""Strict YAML: one document of plain data, YAML 1.2 scalars, every mistake with its place.

PyYAML's event parser reads the syntax (its C form where present); the meaning is decided here,
because PyYAML follows YAML 1.1, where `no` is false and 22:22 a number. Only what JSON can hold
comes out: no tags, no merge keys, no keys but text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from inferfleet.errors import USAGE, FleetError, Where
from inferfleet.schema.nodes import Document, Node, Spot, describe

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
MAX_DEPTH = 40

_INT = re.compile(r"0|-?[1-9][0-9]{0,300}")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Control characters, and the three line breaks that YAML 1.1 knows and 1.2 does not. What is
# forbidden is listed because the far larger set of what is allowed takes 5 ms to compile.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)
_TAB = "a tab cannot stand here"
_LINE_BREAK = re.compile("\r\n|\r|\n")


def scalar(text: str) -> str | int | float | bool | None:
    """A plain (unquoted) YAML scalar as JSON value; what is no number or word stays text."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == "-" or "0" <= first <= "9":
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and ("." in text or "e" in text or "E" in text):
            number = float(text)
            return text if number in (float("inf"), float("-inf")) else number
    return text


def read(data: bytes, file: str, *, pure: bool = False) -> Document:
    """The document in data; file names it in errors. pure: use PyYAML's Python parser.

    An empty file is a mistake, `null` alone is not. Never raises; the errors are in the document.
    """
    document = Document(None)
    try:
        text = _decode(data, file)
        loader = yaml.SafeLoader if pure else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            events = yaml.parse(text, Loader=loader)
            builder = _Builder(file, document.errors, events)
            document.root = builder.document()
            document.null = builder.null
        except yaml.MarkedYAMLError as error:
            raise _syntax_error(error, text, file) from None
    except FleetError as error:
        document.errors.append(error)
    return document


def _error(what: str, where: Where, hint: str = "") -> FleetError:
    return FleetError(what, hint, where, USAGE)


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise _error(f"is larger than {MAX_BYTES} bytes", Where(file))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise _error("is not UTF-8 text", _where_after(before, file), "save it as UTF-8") from None
    if match := _FORBIDDEN.search(text):
        raise _error(
            f"holds the character U+{ord(match[0]):04X}, which YAML text cannot hold",
            _where_after(text[: match.start()], file),
            'write it as an escape in double quotes, such as "\\u2028"'
            if match[0] > "\x7f"
            else "",
        )
    return text


def _where_after(text: str, file: str) -> Where:
    lines = _LINE_BREAK.split(text)
    return Where(file, len(lines), len(lines[-1]) + 1)


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> FleetError:
    mark = error.problem_mark or error.context_mark
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file)
    end = _where_after(text, file)
    where = min(where, end)  # at the end of the text the C parser counts one line too many
    line = _LINE_BREAK.split(text)[where.line - 1] if where.line else ""
    if line[where.column - 1 : where.column] == "\t":
        return _error(_TAB, where, "use spaces")
    problem = error.problem or "cannot be parsed"
    opened = error.context_mark
    since = f" (begun on line {opened.line + 1})" if opened and opened.line + 1 < where.line else ""
    hint = 'put a value that holds ": " in quotes' if "mapping values" in problem else ""
    return _error(f"is not valid YAML: {problem}{since}", where, hint)


class _Builder:
    """Nodes from PyYAML's events; recursive, so the depth is limited."""

    def __init__(self, file: str, errors: list[FleetError], events: Iterator[Any]) -> None:
        self.file = file
        self.errors = errors
        self.events = events
        self.anchors: dict[str, Node] = {}
        self.null = False

    def report(self, what: str, spot: Spot, hint: str = "") -> None:
        self.errors.append(_error(what, Where(self.file, *spot), hint))

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self.events:
            kind = type(event)
            if kind is yaml.DocumentStartEvent:
                documents += 1
                mark = event.start_mark
                spot = (mark.line + 1, mark.column + 1)
                if documents > 1:
                    self.report("a second document begins here", spot, "one file, one document")
                    break
                if event.version or event.tags:
                    self.report("a YAML directive cannot be used", spot, "remove the % line")
                root = self.root(next(self.events))
        if not documents:
            self.empty()
        return root

    def empty(self) -> None:
        hint = "write keys, or `null` to remove our file of the same name, or delete it"
        self.report("is empty", (1, 1), hint)

    def root(self, event: Any) -> Node | None:
        node = self.node(event, 0, None)
        if node.value is None:
            self.null = bool(getattr(event, "value", ""))
            if not self.null and not self.errors:
                self.empty()
            return None
        if type(node.value) is not dict:
            self.report(f"should hold keys with values, found {describe(node.value)}", node.spot)
            return None
        return node

    def node(self, event: Any, depth: int, key: Spot | None) -> Node:
        mark = event.start_mark
        spot = (mark.line + 1, mark.column + 1)
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self.alias(event.anchor, spot, key)
        if event.tag is not None:
            self.report(f"the tag {event.tag} cannot be used", spot, "remove it; quotes make text")
        if depth > MAX_DEPTH:
            raise _error(f"is nested more than {MAX_DEPTH} deep", Where(self.file, *spot))
        if kind is yaml.ScalarEvent:
            node = self.scalar(event, spot, key)
        elif kind is yaml.MappingStartEvent:
            node = self.mapping(spot, depth, key)
        else:
            node = self.sequence(spot, depth, key)
        if event.anchor:
            if event.anchor in self.anchors:
                self.report("an anchor of this name exists already", spot, "give it another name")
            self.anchors[event.anchor] = node
        return node

    def alias(self, anchor: str, spot: Spot, key: Spot | None) -> Node:
        target = self.anchors.get(anchor)
        if target is None:
            self.report("the alias names no anchor before it", spot)
            return Node(None, self.file, spot, key)
        return Node(target.value, self.file, spot, key, target.size)

    def scalar(self, event: Any, spot: Spot, key: Spot | None) -> Node:
        text = event.value
        if event.style:
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                self.report("holds a NUL or half a character, which no text can hold", spot)
            return Node(text, self.file, spot, key)
        if "\t" in text:  # PyYAML's Python parser refuses it, its C parser does not
            self.report(_TAB, spot, "use spaces, or quotes")
        # Where nothing is written the two parsers disagree on the place; the key's is better.
        return Node(scalar(text), self.file, spot if text or key is None else key, key)

    def mapping(self, spot: Spot, depth: int, key: Spot | None) -> Node:
        items: dict[str, Node] = {}
        node = Node(items, self.file, spot, key)
        while type(event := next(self.events)) is not yaml.MappingEndEvent:
            name = self.node(event, depth + 1, None)
            value = self.node(next(self.events), depth + 1, name.spot)
            self.grow(node, value)
            if not isinstance(name.value, str):
                hint = "put it in quotes" if type(name.value) not in (dict, list) else ""
                found = describe(name.value)
                self.report(f"a key should be text, found {found}", name.spot, hint)
                if type(event) is yaml.ScalarEvent and name.value is not None:
                    # What stands below it is looked at as if it were in quotes.
                    items.setdefault(event.value, value)
            elif name.value == "<<" and not event.style:
                self.report("merge keys cannot be used", name.spot, "write the keys out")
            elif name.value in items:
                line = (items[name.value].key or spot)[0]
                self.report(f"the key {name.value} is there twice, first on line {line}", name.spot)
            else:
                items[name.value] = value
        return node

    def sequence(self, spot: Spot, depth: int, key: Spot | None) -> Node:
        items: list[Node] = []
        node = Node(items, self.file, spot, key)
        while type(event := next(self.events)) is not yaml.SequenceEndEvent:
            item = self.node(event, depth + 1, None)
            self.grow(node, item)
            items.append(item)
        return node

    def grow(self, node: Node, inner: Node) -> None:
        node.size += inner.size
        if node.size > MAX_NODES:
            raise _error(
                f"holds more than {MAX_NODES} values once its aliases are written out",
                Where(self.file, *inner.spot),
            )
