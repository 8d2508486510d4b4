"""A service kind: services/NAME.yaml, everything that is the same for all services of a kind.

Text that holds {placeholder} is filled in by inferfleet.resolve; PLACEHOLDERS lists the names.
A list inside an argument list is a group: it is left out when one of its placeholders is unset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from inferfleet.schema.fields import AbsolutePath, Duration, Model, Name, Option, Port, Size, Text

Probe = Literal["openai-chat", "openai-completion", "ollama-generate", "http"]
Api = Literal["openai", "ollama", "web", "http"]
Format = Literal["gguf", "hf", "ollama"]

PLACEHOLDERS = frozenset(
    {
        "model", "served-name", "bind", "port", "container-port", "cache", "program", "python",
        "embedded", "modelfile",
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


class SecretUse(Model):
    """How a secret of the machine reaches the service."""

    env: EnvName = Field(description="Environment variable that the service reads it from.")
    required: bool = Field(default=False, description="The service does not start without it.")
    api_key: bool = Field(default=False, description="Clients must send it as their API key.")


class Options(Model):
    """How the keys of a service's options: become command-line flags.

    style vllm: --name value, booleans --name and --no-name, a list is one flag with several
    values. style llama-cpp: --name value, a false boolean is --no-name where the engine has it,
    a list repeats the flag. style none: the service takes no options.
    """

    style: Literal["vllm", "llama-cpp", "none"] = Field(
        default="none", description="How a name and its value become words of the command line."
    )
    source: Text = Field(default="", description="Where the known names were read.")
    known: list[Text] | None = Field(
        default=None,
        description="Names that the engine knows, without dashes; left out: any name goes.",
    )
    short: list[Text] = Field(default=[], description="Known names that take a single dash.")
    on_off: list[Text] = Field(default=[], description="Booleans written as on and off.")
    managed: dict[Text, Text] = Field(
        default={},
        description="Names that inferbase sets itself, each with the machine file's key for it.",
    )
    removed: dict[Text, Text] = Field(
        default={}, description="Names of older versions, each with what to do instead."
    )
    defaults: dict[Text, Option] = Field(
        default={}, description="Options that every service of the kind has unless it says other."
    )


class Health(Model):
    """The URL that tells whether the service is healthy."""

    path: Text = Field(description="Answers 2xx when the service is healthy.")
    loading: list[Annotated[int, Field(ge=100, le=599)]] = Field(
        default=[], description='HTTP statuses that mean "not yet".'
    )


class Wire(Model):
    """Environment variables that list the machine's other services of an API."""

    api: Api = Field(description="The services that are listed.")
    urls: EnvName = Field(
        description="Variable that receives their addresses inside the container network."
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


class HealthCheck(Model):
    """The container's health check."""

    test: list[Template] = Field(description="Command as Docker takes it, with CMD in front.")
    interval: Duration = Field(default=10, description="Time between two checks.")
    timeout: Duration = Field(default=5, description="Time after which a check has failed.")
    retries: Annotated[int, Field(ge=1)] = Field(
        default=3, description="Failures in a row that make the container unhealthy."
    )


class ComposeKind(Model):
    """The service as a container."""

    image: Text = Field(description="Image used without a GPU, its tag pinned.")
    image_cuda: Text | None = Field(default=None, description="Image used with a GPU.")
    entrypoint: list[Template] | None = Field(
        default=None, description="Replaces the image's entrypoint."
    )
    command: Argv = Field(default=[], description="Arguments of the entrypoint.")
    port: Port = Field(description="Port that it listens on inside the container.")
    user: Annotated[str, Field(pattern=r"^\d+:\d+$")] = Field(
        description="User and group inside the container, as numbers."
    )
    read_only: bool = Field(default=True, description="The root file system is read-only.")
    environment: dict[EnvName, Template] = Field(
        default={}, description="Environment variables of every service of the kind."
    )
    models: AbsolutePath | None = Field(
        default=None, description="Where the machine's models directory appears, read-only."
    )
    volumes: dict[Name, AbsolutePath] = Field(
        default={}, description="Private volumes: suffix of the volume's name, and its path."
    )
    tmpfs: dict[AbsolutePath, Text] = Field(
        default={}, description="Directories in memory: path, and mount options."
    )
    shm: Size | None = Field(default=None, description="Size of /dev/shm.")
    pids: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="Most processes and threads it may have."
    )
    memlock: bool = Field(default=False, description="It may lock memory without a limit.")
    modelfile: AbsolutePath | None = Field(
        default=None, description="Where the service's Modelfile appears, for Ollama."
    )
    healthcheck: HealthCheck = Field(description="How Docker checks the container.")
    stop_timeout: Duration = Field(default=30, description="Time between TERM and KILL.")


class SystemdKind(Model):
    """The service as a native unit."""

    program: AbsolutePath = Field(description="Default of the service's program.")
    command: Argv = Field(description="Command line; its first word is {program}.")
    environment: dict[EnvName, Template] = Field(
        default={}, description="Environment variables of every service of the kind."
    )
    jit: bool = Field(default=False, description="The program makes memory executable.")
    netlink: bool = Field(
        default=False, description="The program asks the kernel for network interfaces."
    )
    cache: bool = Field(default=False, description="The program needs a writable {cache}.")
    tasks: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="Most processes and threads it may have."
    )
    stop_timeout: Duration = Field(default=30, description="Time between TERM and KILL.")


class ProcessKind(Model):
    """The service as a supervised background process."""

    command: Argv = Field(description="Command line of a service that has a program.")
    embedded: Argv | None = Field(
        default=None,
        description="Command line of a service without one, on the local machine only, where "
        "{python} and {embedded} are known.",
    )
    environment: dict[EnvName, Template] = Field(
        default={}, description="Environment variables of every service of the kind."
    )


class Kind(Model):
    """One kind of service; it has at least one of compose, systemd and process."""

    summary: Text = Field(description="One line on what it is.")
    api: Api = Field(description="What clients speak to it.")
    default_port: Port | None = Field(
        default=None, description="Port of a service that names none."
    )
    model_required: bool = Field(default=False, description="A service without a model is wrong.")
    model_format: Format | None = Field(
        default=None, description="What form its models have; says what a bare model name means."
    )
    gpu: bool = Field(default=False, description="It uses the GPUs of a machine that has any.")
    health: Health | None = Field(default=None, description="How it says that it is healthy.")
    probe: Probe = Field(
        default="http",
        description="The request that proves it ready: one generated token, or the health URL "
        "alone.",
    )
    metrics: Text | None = Field(default=None, description="Path of its Prometheus metrics.")
    start_timeout: Duration = Field(
        default=120, description="Time from start to ready, unless the service says otherwise."
    )
    options: Options = Field(default=Options(), description="The engine's command-line options.")
    secrets: dict[EnvName, SecretUse] = Field(
        default={}, description="Secrets that it can use, by the name the machine gives them."
    )
    wires: list[Wire] = Field(
        default=[], description="How it learns of the machine's other services."
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
    def options_known(self) -> frozenset[str] | None:
        """Option names without dashes that the engine knows; None: not recorded."""
        return None if self.options.known is None else frozenset(self.options.known)

    @property
    def options_managed(self) -> Mapping[str, str]:
        """Option names that inferbase sets -> the key of the machine file that sets them."""
        return self.options.managed
