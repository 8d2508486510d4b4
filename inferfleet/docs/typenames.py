"""Names of types and placeholders in machine, hardware and kind files, for the reference."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from inferfleet.schema import fields, placeholders, repository, words

TYPES = {
    "name": "a-z, 0-9, - and _, beginning with a letter or digit, at most 63 characters",
    "text": "any text without NUL",
    "port": "a number from 1 to 65535",
    "size": "bytes, or a number with K, M, G or T (powers of 1024), such as 96G",
    "duration": "seconds, or a number with s, m or h, such as 15m",
    "CPU list": "CPU numbers and rising ranges, such as 0-3,8",
    "path": "an absolute path without ..",
    "home path": "an absolute path without .., or one that begins with ~/",
    "IP address": "an IPv4 or IPv6 address, such as 127.0.0.1",
    "subnet": "first address and prefix length, such as 172.20.0.0/16",
    "volume": "an absolute path of the machine, or the name of a volume",
    "word": "text without spaces that does not begin with -",
    "variable": "name of an environment variable: letters, digits and _",
    "option": "name of an engine's option, without leading dashes",
    "SHA-256": "64 digits 0-9 a-f",
    "scalar": "true, false, a number or text",
    "value": "a scalar, a list of scalars, a mapping (written as JSON), or null",
    "template": "text with placeholders in braces",
    "arguments": "a list of templates; a list inside it is a group that stands or falls as one",
    "sysctl key": "a name below /proc/sys with dots, such as vm.swappiness",
    "path in /sys": "an absolute path below /sys without ..; * ? [] match as in the shell",
    "kernel module": "letters, digits, _ and -",
    "kernel parameter": "its name alone: letters, digits, _ . and -",
    "unit name": "a systemd unit with its suffix, such as irqbalance.service",
    "line": "text without line breaks and without a backslash at its end",
    "plain word": "text without spaces, quotes, $ and backslash",
    "plain path": "an absolute path of letters, digits and / _ . : @ + , = -",
    "file mode": 'four digits in quotes, such as "0644"',
    "version": 'numbers with dots, in quotes, such as "12.8"',
    "user": "a-z, 0-9, _ and -, beginning with a letter or _",
    "share": "a percentage, such as 10%",
    "clock range": "MHz, one or two with - between them, such as 2400-2550",
    "MIG profile": "as mig-parted names it, such as 1g.12gb",
    "GPU number": "in quotes, or all",
    "true or false": "true or false, nothing else",
    "number": "a number",
    "fields": "a mapping of any depth",
}  # fmt: skip

PLACEHOLDERS = {
    "model": "path of the service's model, as the program sees it",
    "served-name": "name under which clients ask for the model",
    "bind": "address that the service listens on",
    "host": "the same before a port: an IPv6 address in brackets",
    "port": "port of the service on the machine",
    "container-port": "port of the service inside its container",
    "cache": "directory that the program may write to; kept over restarts",
    "program": "the executable: the service's program, else the kind's",
    "embedded": "the program of the server that the extra `local` brings; local machine only",
    "modelfile": "path of the rendered Modelfile, as the program sees it",
    "go-template": "1 where the service's Modelfile has a template, else no value",
    "state": "directory of the program's data; kept until somebody removes it",
    "files": "directory of the service's files, as the program sees it",
    "service": "name of the service, its host name inside the container network",
    "allowed-hosts": "names that clients call the service by, each also with :*, with commas",
    "origins": "http://NAME:PORT of its own pages, with commas; no value on loopback",
    "repository": "directory of the service's model repository, as the program sees it",
}

_NAMED = [
    (fields.Option, "value"), (fields.Scalar, "scalar"), (placeholders.Argv, "arguments"),
    (placeholders.Template, "template"), (fields.Name, "name"), (fields.Text, "text"),
    (fields.Port, "port"), (fields.Size, "size"), (fields.Duration, "duration"),
    (fields.Cpuset, "CPU list"), (fields.AbsolutePath, "path"), (fields.RootPath, "home path"),
    (fields.Address, "IP address"), (fields.Subnet, "subnet"), (fields.VolumeSource, "volume"),
    (fields.SshWord, "word"), (fields.EnvName, "variable"), (placeholders.EnvName, "variable"),
    (fields.Flag, "option"), (fields.Sha256, "SHA-256"), (bool, "true or false"),
    (words.SysctlKey, "sysctl key"), (words.SysPath, "path in /sys"),
    (words.Module, "kernel module"), (words.Parameter, "kernel parameter"),
    (words.UnitName, "unit name"), (words.Word, "plain word"),
    (words.Line, "line"),
    (words.PlainPath, "plain path"), (words.FileMode, "file mode"),
    (words.Version, "version"), (words.Owner, "user"), (words.Percent, "share"),
    (words.Clocks, "clock range"), (words.MigProfile, "MIG profile"),
    (words.GpuNumber, "GPU number"), (repository.Fields, "fields"),
]  # fmt: skip
_SCALARS = set(get_args(fields.Scalar))


class Names:
    """Labels of annotations; used collects those that TYPES explains."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def label(self, hint: Any, path: str) -> str:
        """What the reference says about an annotation; path: where a model below it is told."""
        for known, name in _NAMED:
            if hint == known:
                self.used.add(name)
                return name
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return f"[mapping](#{path.lower().replace('.', '').replace('[]', '')})"
        origin, parts = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._union([part for part in parts if part is not type(None)], path)
        if origin is Literal:
            return ", ".join(f"`{part}`" for part in parts)
        if origin is list:
            return f"list of {self.label(parts[0], path + '[]')}"
        if origin is dict:
            held = self.label(parts[1], f"{path}.NAME")
            return f"mapping of {self.label(parts[0], path)} to {held}"
        if origin is Annotated:
            return self._annotated(parts, path)
        if hint in (int, float):
            self.used.add("number")
            return "number"
        raise TypeError(f"{path}: {hint} has no name in the reference")

    def _union(self, parts: list[Any], path: str) -> str:
        labels = []
        if set(parts) >= _SCALARS:
            self.used.add("scalar")
            labels = ["scalar"]
            parts = [part for part in parts if part not in _SCALARS]
        labels += [self.label(part, path) for part in parts]
        return " or ".join(dict.fromkeys(labels))

    def _annotated(self, parts: tuple[Any, ...], path: str) -> str:
        bounds = []
        known = self._narrowed(parts)
        for note in parts[1:]:
            if isinstance(note, BeforeValidator) and not known:
                return self.label(note.json_schema_input_type, path)
            if isinstance(note, fields.Matching):
                what = note.message.partition(";")[0].removeprefix("is not ")
                return what.removeprefix("a ").removeprefix("an ")
            if isinstance(note, FieldInfo):
                bounds += [_bound(mark) for mark in note.metadata]
        words = [known or (self.label(parts[0], path) if parts[0] is not str else self._text())]
        return " ".join([*words, *filter(None, bounds)])

    def _narrowed(self, parts: tuple[Any, ...]) -> str | None:
        """The name of the type that an annotation with more notes begins with."""
        for known, name in _NAMED:
            args = get_args(known)
            if get_origin(known) is Annotated and parts[: len(args)] == args:
                self.used.add(name)
                return name
        return None

    def _text(self) -> str:
        self.used.add("text")
        return "text"


def _bound(mark: Any) -> str:
    """A limit of pydantic's as words; "" for what is none."""
    for attribute, said in (("ge", "from"), ("gt", "above"), ("le", "to")):
        if hasattr(mark, attribute):
            return f"{said} {getattr(mark, attribute)}"
    return ""


def model_of(hint: Any) -> Iterator[tuple[Any, str]]:
    """The models inside an annotation, each with what follows the key on the way to it."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint, ""
    elif get_origin(hint) is dict:
        yield from ((model, f".NAME{more}") for model, more in model_of(get_args(hint)[1]))
    elif get_origin(hint) is list:
        yield from ((model, f"[]{more}") for model, more in model_of(get_args(hint)[0]))
    elif get_origin(hint) in (Union, types.UnionType, Annotated):
        for part in get_args(hint):
            yield from model_of(part)
