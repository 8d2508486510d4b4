"""Text of a kind file that holds {placeholder}, and how it is filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from inferfleet.schema.fields import Text

PLACEHOLDERS = frozenset(
    {
        "model", "served-name", "bind", "host", "port", "container-port", "cache", "program",
        "embedded", "modelfile", "state", "files", "repository",
        "service", "go-template", "allowed-hosts", "origins",
    }
)  # fmt: skip
OPTIONS = "{options}"
_PLACEHOLDER = re.compile(r"\{([a-z-]+)\}")


def placeholders(text: str) -> Iterator[str]:
    """The names of the placeholders in a text of a kind file."""
    return (match[1] for match in _PLACEHOLDER.finditer(text))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced; the values are not looked at again."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _check_placeholders(text: str) -> str:
    if text == OPTIONS:
        return text
    for name in placeholders(text):
        if name not in PLACEHOLDERS:
            raise ValueError(
                f"has the unknown placeholder {{{name}}}; known are "
                + ", ".join(f"{{{known}}}" for known in sorted(PLACEHOLDERS))
            )
    return text


Template = Annotated[Text, AfterValidator(_check_placeholders)]
Argv = list[Template | list[Template]]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
