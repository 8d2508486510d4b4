"""A model file: inventory/models/NAME.yaml, and what a model looks like inside a machine file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferfleet.schema.fields import Matching, Merge, Model, ServedName, Sha256, Size, Text

AliasPath = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
        r"(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*)*",
        "a relative directory",
        "write it as team/model",
    ),
]
FileName = Annotated[
    str, Matching("[A-Za-z0-9][A-Za-z0-9._-]*", "a file name", "use letters, digits, . _ -")
]
FilePath = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*",
        "a path below the model's directory",
        "write it as model.safetensors or sub/model.safetensors",
    ),
]
Revision = Annotated[
    str,
    Matching("[A-Za-z0-9][A-Za-z0-9._-]*", "a revision", "name a branch, a tag or a commit"),
]


class ModelShape(Model):
    """What capacity needs to know of a model where neither machine nor source can be asked."""

    config: dict[str, object] = Field(
        description="What its config.json says of layers, heads, sizes and types, by the names "
        "there; for a GGUF file that of the model it was made from."
    )
    weights: Size | None = Field(
        default=None, description="Bytes of its weights; left out: estimated from config."
    )


class DeclaredModel(Model):
    """A model that services name by `model: NAME`."""

    summary: Text | None = Field(default=None, description="One line on what it is for.")
    merge: Merge = True
    source: Text = Field(
        description="hf:ORG/NAME[@REVISION][/FILE] (hf: may be left out), https://..., "
        "file:/path/on/operator, pypi:NAME==VERSION/MEMBER, ollama:NAME, or an absolute path on "
        "the machine."
    )
    revision: Revision | None = Field(
        default=None,
        description="Branch, tag or commit of an hf: repository, if not in source; only a commit, "
        "with all its digits, stays what it is.",
    )
    files: list[Text] | None = Field(
        default=None, description="Which files of an hf: repository, as glob patterns."
    )
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of the one file.")
    checksums: dict[FilePath, Sha256] = Field(
        default={}, description="SHA-256 of files of a repository or directory, by path."
    )
    shape: ModelShape | None = Field(
        default=None, description="Its layers and sizes, for `capacity` without the model's files."
    )
    served_name: ServedName | None = Field(
        default=None, description="Name under which clients ask for it, unless a service says one."
    )
    aliases: dict[AliasPath, dict[FileName, Text]] = Field(
        default={},
        description="Directories below the models directory, of links to the model's files; each "
        "with the names and texts of files that only it has.",
    )
