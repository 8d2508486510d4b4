"""A service kind: services/NAME.yaml, everything that is the same for all services of a kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from inferfleet.schema.fields import (
    Duration,
    Merge,
    Model,
    Name,
    Port,
    Probe,
    Scalar,
    Size,
    Text,
)
from inferfleet.schema.model import FileName
from inferfleet.schema.options import Options
from inferfleet.schema.placeholders import EnvName
from inferfleet.schema.runtime import ComposeKind, ProcessKind, SystemdKind

Api = Literal["openai", "ollama", "web", "http"]
ModelForm = Literal["directory", "gguf", "ollama"]
Engine = Literal["vllm", "llama-cpp", "ollama", "sglang", "tgi", "triton"]
ParameterType = Literal["a whole number", "a number", "true or false", "text or a list of texts"]


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return text


class SecretUse(Model):
    """How a secret of the machine reaches the service."""

    summary: Text | None = Field(default=None, description="One line on what it is for.")
    env: EnvName = Field(description="Environment variable that the service reads it from.")
    required: bool = Field(default=False, description="The service does not start without it.")
    api_key: bool = Field(default=False, description="Clients must send it as their API key.")


class ModelUse(Model):
    """Which models the services of a kind serve."""

    required: bool = Field(default=False, description="A service without a model is wrong.")
    bare: Literal["hf", "ollama"] | None = Field(
        default=None,
        description="What a name without a scheme means: a repository of the hub or a model of "
        "Ollama.",
    )
    takes: list[ModelForm] = Field(
        default=[],
        description="Forms that it can load, its own first: a directory (also a repository of the "
        "hub), one GGUF file, a model of Ollama; left out: any.",
    )


class Health(Model):
    """The URL that tells whether the service is healthy."""

    path: Text = Field(description="Answers 2xx when the service is healthy.")
    loading: list[Annotated[int, Field(ge=100, le=599)]] = Field(
        default=[], description='HTTP statuses that mean "not yet".'
    )
    page: Text | None = Field(
        default=None,
        description="Another path that must answer 2xx, asked with the service's key, before it "
        "counts as ready.",
    )
    deadline: Duration = Field(
        default=30,
        description="Time in which a service that was ready has to generate one token, unless "
        "the service says otherwise.",
    )


class ProbeWhen(Model):
    """Another probe for services that have an option set to a value."""

    option: Text = Field(description="Name of the option.")
    value: Scalar = Field(description="Its value.")
    probe: Probe = Field(description="The request that proves such a service ready.")


class Metrics(Model):
    """What the engine tells of itself as Prometheus text; a text alone is the path.

    Names are those of the exposition, such as vllm:generation_tokens_total.
    """

    path: Text = Field(description="Path of the metrics on the service's port.")
    port: Name | None = Field(
        default=None, description="Name of the extra port that has them, if not the main one."
    )
    tokens: Text | None = Field(
        default=None,
        description="Counter of generated tokens, also one that counts them when a request ends.",
    )
    progress: list[Text] = Field(
        default=[],
        description="Figures that change while the engine works on a request, not only when one "
        "begins or ends; without any, nothing is called stuck.",
    )
    running: list[Text] = Field(
        default=[], description="Gauges of the requests that it works on or has queued."
    )


def _path_alone(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class StartFailure(Model):
    """Lines of the log that say why the engine does not start."""

    match: Annotated[Text, AfterValidator(_check_pattern)] = Field(
        description="Regular expression that is found in such a line; its named groups can stand "
        "in says and hint as {name}."
    )
    says: Text = Field(description="What it means, as one sentence without its full stop.")
    hint: Text = Field(default="", description="What to do about it.")
    more: Annotated[int, Field(ge=0, le=20)] = Field(
        default=0, description="How many lines after it belong to it and are shown, too."
    )


class Wire(Model):
    """Environment variables that list the machine's other services of an API or a kind."""

    api: Api | None = Field(default=None, description="The services of this API are listed.")
    kind: Name | None = Field(default=None, description="The services of this kind are listed.")
    first: bool = Field(
        default=False, description="Only the first one counts; without any nothing is set."
    )
    urls: EnvName = Field(
        description="Variable that receives their addresses: inside the container network for a "
        "container, on the machine for others."
    )
    keys: EnvName | None = Field(
        default=None, description="Variable that receives their API keys, in the same order."
    )
    enable: EnvName | None = Field(
        default=None, description="Variable that receives true or false: whether there are any."
    )
    suffix: Text = Field(default="", description="Follows each address, such as /v1.")
    separator: Annotated[str, Field(min_length=1, max_length=1)] = Field(
        default=";", description="Stands between two addresses or keys."
    )

    @model_validator(mode="after")
    def _one(self) -> Wire:
        if (self.api is None) == (self.kind is None):
            raise ValueError("needs exactly one of api, kind")
        return self


class Kind(Model):
    """One kind of service; it has at least one of compose, systemd and process."""

    summary: Text = Field(description="One line on what it is.")
    merge: Merge = True
    notice: Text | None = Field(
        default=None, description="What everybody who uses the kind is told by plan and validate."
    )
    api: Api = Field(description="What clients speak to it.")
    default_port: Port | None = Field(
        default=None, description="Port of a service that names none."
    )
    model: ModelUse | None = Field(
        default=None, description="Which models its services serve; left out: none."
    )
    engine: Engine | None = Field(
        default=None,
        description="Whose rules of memory hold for it: with them `capacity` counts what its "
        "services take, and `up` refuses what does not fit; left out: nobody's.",
    )
    needs: list[Text] = Field(
        default=[],
        description="Keys of a service, such as repository or options.NAME, of which it has to "
        "have one.",
    )
    gpu: bool = Field(default=False, description="It uses the GPUs of a machine that has any.")
    memory_estimate: Size | None = Field(
        default=None,
        description="Main memory that such a service usually takes, for `capacity` where its "
        "machine file does not say; refuses nothing.",
    )
    health: Health | None = Field(default=None, description="How it says that it is healthy.")
    probe: Probe = Field(
        default="http",
        description="The request that proves it ready: one generated token, or the health URL "
        "alone.",
    )
    probe_when: list[ProbeWhen] = Field(
        default=[], description="Other probes for services with certain options; the first fits."
    )
    login: bool = Field(
        default=False, description="It has accounts of its own, so that it needs no API key."
    )
    metrics: (
        Annotated[Metrics, BeforeValidator(_path_alone, json_schema_input_type=Text | Metrics)]
        | None
    ) = Field(default=None, description="Its Prometheus metrics; a text alone is their path.")
    start_timeout: Duration = Field(
        default=120, description="Time from start to ready, unless the service says otherwise."
    )
    failures: list[StartFailure] = Field(
        default=[],
        description="Why it did not start, recognised in its log; the first that is found counts.",
    )
    files: dict[FileName, Text] = Field(
        default={},
        description="Files of every service of the kind, in the directory {files}: name, and the "
        "template that it is rendered from.",
    )
    options: Options = Field(default=Options(), description="The engine's command-line options.")
    parameters: dict[Text, ParameterType] | None = Field(
        default=None,
        description="Parameters that a modelfile can set, each with its type; left out: any.",
    )
    secrets: dict[EnvName, SecretUse] = Field(
        default={}, description="Secrets that it can use, by the name the machine gives them."
    )
    wires: list[Wire] = Field(
        default=[], description="How it learns of the machine's other services."
    )
    renders: Literal["gateway"] | None = Field(
        default=None,
        description="Configuration that inferbase works out for its services, in {files}.",
    )
    compose: ComposeKind | None = Field(default=None, description="The service as a container.")
    systemd: SystemdKind | None = Field(
        default=None, description="The service as a native systemd unit."
    )
    process: ProcessKind | None = Field(
        default=None, description="The service as a supervised background process."
    )

    @model_validator(mode="after")
    def _runs(self) -> Kind:
        if not self.runtimes:
            raise ValueError("needs one of compose, systemd, process")
        return self

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that this kind has a section for, the usual one first."""
        sections = {"compose": self.compose, "systemd": self.systemd, "process": self.process}
        return tuple(name for name, section in sections.items() if section is not None)

    @property
    def model_scheme(self) -> str | None:
        """What a model's name without a scheme means: hf, ollama, or nothing."""
        return self.model.bare if self.model else None

    @property
    def model_required(self) -> bool:
        """Whether a service without a model is wrong."""
        return self.model is not None and self.model.required

    @property
    def sections(self) -> frozenset[str]:
        """The keys of a service that only some kinds have a use for, and this one has."""
        compose = self.compose
        used = {
            "modelfile": self.parameters is not None or bool(compose and compose.modelfile),
            "repository": bool(compose and compose.repository),
            "gateway": self.renders == "gateway",
            "options": self.options.style != "none",
        }
        return frozenset(name for name, is_used in used.items() if is_used)

    @property
    def options_known(self) -> frozenset[str] | None:
        """Option names without dashes that the engine knows; None: not recorded."""
        return None if self.options.known is None else frozenset(self.options.known)

    @property
    def options_managed(self) -> Mapping[str, str]:
        """Option names that inferbase sets -> the key of the machine file that sets them."""
        return self.options.managed
