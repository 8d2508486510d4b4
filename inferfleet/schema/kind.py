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
    ("model", "served-name", "bind", "port", "container-port", "cache", "program", "python")
    + ("embedded", "modelfile")
)
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
    """How a secret of the machine reaches the service: as the environment variable env.

    required: the service does not start without it. api-key: clients must send it.
    """

    env: EnvName
    required: bool = False
    api_key: bool = False


class Options(Model):
    """How the keys of a service's options: become command-line flags.

    style vllm: --name value, booleans --name and --no-name, a list is one flag with several
    values. style llama-cpp: --name value, a false boolean is --no-name where the engine has it,
    a list repeats the flag. style none: the service takes no options.
    known: the names the engine knows, without dashes; source says where they were read.
    short: those of known that take a single dash. on-off: booleans written as on and off.
    managed: names that inferbase sets itself -> the key of the machine file that sets them.
    removed: names of older versions -> what to do instead. defaults: options of every service.
    """

    style: Literal["vllm", "llama-cpp", "none"] = "none"
    source: Text = ""
    known: list[Text] | None = None
    short: list[Text] = []
    on_off: list[Text] = []
    managed: dict[Text, Text] = {}
    removed: dict[Text, Text] = {}
    defaults: dict[Text, Option] = {}


class Health(Model):
    """path answers 2xx when healthy; loading: HTTP statuses that mean "not yet"."""

    path: Text
    loading: list[Annotated[int, Field(ge=100, le=599)]] = []


class Wire(Model):
    """Environment variables that list the machine's other services of an API.

    urls receives their addresses inside the container network, each followed by suffix; keys
    their API keys in the same order; enable true or false; all joined by separator.
    """

    api: Api
    urls: EnvName
    keys: EnvName | None = None
    enable: EnvName | None = None
    suffix: Text = ""
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ";"


class HealthCheck(Model):
    """The container's health check; interval and timeout in seconds."""

    test: list[Template]
    interval: Duration = 10
    timeout: Duration = 5
    retries: Annotated[int, Field(ge=1)] = 3


class ComposeKind(Model):
    """The service as a container.

    image, image-cuda: without and with a GPU; both pinned. models: where the machine's models
    directory appears, read-only. volumes: name suffix -> path, private volumes of the service.
    user: who runs inside, as numbers. tmpfs: path -> mount options.
    """

    image: Text
    image_cuda: Text | None = None
    entrypoint: list[Template] | None = None
    command: Argv = []
    port: Port
    user: Annotated[str, Field(pattern=r"^\d+:\d+$")]
    read_only: bool = True
    environment: dict[EnvName, Template] = {}
    models: AbsolutePath | None = None
    volumes: dict[Name, AbsolutePath] = {}
    tmpfs: dict[AbsolutePath, Text] = {}
    shm: Size | None = None
    pids: Annotated[int, Field(ge=1)] = 1024
    memlock: bool = False
    modelfile: AbsolutePath | None = None
    healthcheck: HealthCheck
    stop_timeout: Duration = 30


class SystemdKind(Model):
    """The service as a native unit; command[0] is {program}.

    program: the default of the service's program:. jit: the program makes memory executable.
    netlink: it asks the kernel for network interfaces. cache: it needs a writable {cache}.
    """

    program: AbsolutePath
    command: Argv
    environment: dict[EnvName, Template] = {}
    jit: bool = False
    netlink: bool = False
    cache: bool = False
    tasks: Annotated[int, Field(ge=1)] = 4096
    stop_timeout: Duration = 30


class ProcessKind(Model):
    """The service as a supervised process.

    command is used with the service's program:; embedded without one, on the local machine
    only, where {python} and {embedded} are known.
    """

    command: Argv
    embedded: Argv | None = None
    environment: dict[EnvName, Template] = {}


class Kind(Model):
    """One kind of service."""

    summary: Text
    api: Api
    default_port: Port | None = None
    model_required: bool = False
    model_format: Format | None = None
    gpu: bool = False
    health: Health | None = None
    probe: Probe = "http"
    metrics: Text | None = None
    start_timeout: Duration = 120
    options: Options = Options()
    secrets: dict[EnvName, SecretUse] = {}
    wires: list[Wire] = []
    compose: ComposeKind | None = None
    systemd: SystemdKind | None = None
    process: ProcessKind | None = None

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
