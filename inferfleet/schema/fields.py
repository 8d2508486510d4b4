"""Field types that several models share, and the base class of all of them.

A validator's message reads after the value ("96Q" is not a size) and its hint follows '; '.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, core_schema

from inferfleet.amounts import cpuset_cpus, parse_size

_NAME = "[a-z0-9][a-z0-9_-]{0,62}"
NAME_PATTERN = f"^{_NAME}$"

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h)")
_DURATION_FACTOR = {"s": 1, "m": 60, "h": 3600}
_CPUSET = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def kebab(name: str) -> str:
    """Python name to file key: start_timeout -> start-timeout."""
    return name.replace("_", "-")


class Model(BaseModel):
    """Base of all models: frozen, no unknown keys, no silent conversions, kebab-case keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=kebab,
        validate_by_name=True,
        validate_by_alias=True,
        # A fleet out of a snapshot never needs the validators, whose building takes 60 ms.
        defer_build=True,
    )


class Matching:
    """Annotation: the whole text matches pattern, else it 'is not WHAT; write HINT'.

    The pattern is also what editors check (anchored, as JSON Schema patterns match anywhere).
    """

    def __init__(self, pattern: str, what: str, hint: str) -> None:
        self.pattern = re.compile(pattern)
        self.message = f"is not {what}; {hint}"

    def check(self, value: str) -> str:
        if not self.pattern.fullmatch(value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], CoreSchema]
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern.pattern})$"}


def parse_duration(value: object) -> int:
    """'15m' to seconds; a bare number is seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)) and int(match[1]):
        return int(match[1]) * _DURATION_FACTOR[match[2]]
    raise ValueError("is not a duration; write a number with s, m or h, such as 15m")


def parse_cpuset(value: object) -> str:
    """'0-11,14' checked and returned as written; each range must rise."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _CPUSET.fullmatch(text):
        cpuset_cpus(text)
        return text
    raise ValueError("is not a CPU list; write it as 0-11 or 0-3,8")


def check_text(value: str) -> str:
    """Any text except NUL and lone surrogates, which no destination can carry."""
    if "\0" in value:
        raise ValueError("contains a NUL character")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError("contains half of a surrogate pair")
    return value


def check_absolute(value: str) -> str:
    """An absolute path without '..' and control characters, in its shortest spelling."""
    parts = value.split("/")
    if not value.startswith("/") or ".." in parts or _CONTROL.search(value):
        raise ValueError("is not an absolute path; write it in full, without '..'")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def check_home_path(value: str) -> str:
    """An absolute path, or one that begins with '~/'."""
    if value.startswith("~/"):
        return "~" + check_absolute(value[1:])
    return check_absolute(value)


def check_address(value: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling, without a zone."""
    try:
        if "%" not in value:
            return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    raise ValueError("is not an IP address; write one such as 127.0.0.1")


def check_subnet(value: str) -> str:
    """An IPv4 or IPv6 network with its prefix length."""
    try:
        if "/" in value and "%" not in value:
            return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    raise ValueError("is not a subnet; write its first address and prefix, such as 172.20.0.0/16")


def check_volume_source(value: str) -> str:
    """An absolute path of the machine, or the name of a volume."""
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", value):
        return value
    try:
        return check_absolute(value)
    except ValueError:
        raise ValueError(
            "is neither an absolute path nor a volume name; a relative path would mean another "
            "directory for each user"
        ) from None


Name = Annotated[
    str, Matching(_NAME, "a name", "use a-z, 0-9, - and _, beginning with a letter or digit")
]
Text = Annotated[str, AfterValidator(check_text)]
Port = Annotated[int, Field(ge=1, le=65535)]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]
Duration = Annotated[int, BeforeValidator(parse_duration, json_schema_input_type=int | str)]
Cpuset = Annotated[str, BeforeValidator(parse_cpuset, json_schema_input_type=int | str)]
AbsolutePath = Annotated[str, AfterValidator(check_absolute)]
RootPath = Annotated[str, AfterValidator(check_home_path)]
Address = Annotated[str, AfterValidator(check_address)]
Subnet = Annotated[str, AfterValidator(check_subnet)]
VolumeSource = Annotated[str, AfterValidator(check_volume_source)]
# A leading '-' would be an option of ssh; white space would be two words of its configuration.
SshWord = Annotated[
    str,
    Matching(r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*", "one word", "no spaces, no '-' in front"),
]
EnvName = Annotated[
    str, Matching("[A-Za-z_][A-Za-z0-9_]*", "a variable name", "use letters, digits and _")
]
Flag = Annotated[
    str,
    Matching("[A-Za-z0-9][A-Za-z0-9._-]*", "an option's name", "write it without leading dashes"),
]
ServedName = Annotated[
    Text,
    Matching(
        r"[^\s\x00-\x1f\x7f-\x9f-][^\x00-\x1f\x7f-\x9f]*",
        "a model's name for clients",
        "begin it with a letter or digit, as team/model",
    ),
]
Sha256 = Annotated[str, Matching("[0-9a-f]{64}", "a SHA-256", "write 64 digits 0-9 a-f")]
Merge = Annotated[
    bool,
    Field(
        exclude=True,
        description="In an overlay: false starts anew instead of being laid over our file of the "
        "same name.",
    ),
]
Probe = Literal["openai-chat", "openai-completion", "openai-embedding", "ollama-generate", "http"]
Scalar = bool | int | float | Text
Option = Scalar | list[Scalar] | dict[str, object] | None
