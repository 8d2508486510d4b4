"""What a kind says of its engine's options: names, values, GPUs, and how they are written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferfleet.schema.fields import Model, Option, Scalar, Text


class OptionValue(Model):
    """What the value of an option has to be.

    A size is a whole number, or one with K, M, G or T as vLLM writes it (4K, 1.5g).
    """

    type: Literal["whole", "number", "size"] | None = Field(
        default=None, description="A whole number, a number, or a size; left out: any text."
    )
    above: float | None = Field(default=None, description="It is larger than this.")
    least: float | None = Field(default=None, description="It is this or larger.")
    most: float | None = Field(default=None, description="It is this or smaller.")
    words: list[Scalar] = Field(default=[], description="Values that it may have besides.")
    one_of: list[Text] = Field(default=[], description="All values that the engine knows.")


class GpuSplit(Model):
    """Over how many GPUs an engine splits a model, by its options.

    A name alone stands for an option that is set, NAME=VALUE for one that has this value.
    """

    factors: list[list[Text]] = Field(
        description="Options whose values, multiplied, are the number of GPUs; each with its other "
        "names, the first that is set counts. One that is not set counts 1."
    )
    without: dict[Text, list[Text]] = Field(
        default={}, description="Options that do not count, by the option that makes it so."
    )
    elsewhere: list[Text] = Field(
        default=[],
        description="Options that spread it over several machines; then nothing is counted.",
    )


class Options(Model):
    """How the keys of a service's options: become command-line flags.

    style vllm: --name value, booleans --name and --no-name, a list is one flag with several
    values. style argparse: the same, but a false boolean leaves the flag out. style llama-cpp:
    --name value, a false boolean is --no-name where the engine has it, a list repeats the flag.
    style equals: --name=value, also --name=true, a list repeats the flag. style none: the service
    takes no options.
    """

    style: Literal["vllm", "argparse", "llama-cpp", "equals", "none"] = Field(
        default="none", description="How a name and its value become words of the command line."
    )
    source: Text = Field(default="", description="Where the known names were read.")
    known: list[Text] | None = Field(
        default=None,
        description="Names that the engine knows, without dashes; left out: any name goes.",
    )
    short: list[Text] = Field(default=[], description="Known names that take a single dash.")
    on_off: list[Text] = Field(default=[], description="Booleans written as on and off.")
    true_false: list[Text] = Field(
        default=[], description="Booleans written as true and false after the flag."
    )
    paths: list[Text] = Field(
        default=[],
        description="Names whose values are paths, also after NAME=. An absolute path is one of "
        "the machine, ./FILE lies in the model's directory, files/FILE is a file of the service.",
    )
    adapters: Text | None = Field(
        default=None,
        description="Name whose values are LoRA adapters, as NAME=PATH or a mapping with name; "
        "clients ask for each by its name.",
    )
    cpus: Text | None = Field(
        default=None,
        description="Name whose default is how many CPUs the service's cpuset or cpus gives it.",
    )
    values: dict[Text, OptionValue] = Field(
        default={}, description="What the values of these options have to be; others: anything."
    )
    gpus: GpuSplit | None = Field(
        default=None, description="Options that say how many GPUs it uses; left out: all it has."
    )
    managed: dict[Text, Text] = Field(
        default={},
        description="Names that inferbase sets itself, each with the machine file's key for it.",
    )
    removed: dict[Text, Text] = Field(
        default={}, description="Names of older versions, each with what to do instead."
    )
    newer: dict[Text, Text] = Field(
        default={},
        description="Known names that the kind's image does not have yet, each with the version "
        "that brought it.",
    )
    defaults: dict[Text, Option] = Field(
        default={}, description="Options that every service of the kind has unless it says other."
    )
