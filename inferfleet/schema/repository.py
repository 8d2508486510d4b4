"""A model of a service's model repository, as Triton reads it: configuration and versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from inferfleet.schema.fields import AbsolutePath, Matching, Model, Text
from inferfleet.schema.model import FileName

Fields = dict[str, object]
Version = Annotated[
    str, Matching("[1-9][0-9]{0,17}", "a version", "write a whole number from 1 without zeros")
]


def _some(versions: dict[str, str]) -> dict[str, str]:
    if not versions:
        raise ValueError("is empty; name a directory, an empty one for an ensemble")
    return versions


class RepositoryModel(Model):
    """One model of the repository."""

    config: Text | Fields = Field(
        default={},
        description="What its config.pbtxt says: the fields by their names, or the whole text.",
    )
    versions: Annotated[dict[Version, AbsolutePath], AfterValidator(_some)] = Field(
        description="Directory of each version on the machine, by its number in quotes."
    )
    extra: dict[FileName, Text] = Field(
        default={}, description="Files, with their text, beside config.pbtxt, such as labels."
    )
