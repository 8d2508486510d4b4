"""A machine file: inventory/NAME.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from inferfleet.schema.fields import (
    AbsolutePath,
    Address,
    Cpuset,
    Duration,
    EnvName,
    Flag,
    Matching,
    Merge,
    Model,
    Name,
    Option,
    Port,
    Probe,
    RootPath,
    Scalar,
    ServedName,
    Sha256,
    Size,
    SshWord,
    Subnet,
    Text,
    VolumeSource,
)
from inferfleet.schema.gateway import Gateway
from inferfleet.schema.model import AliasPath, FileName
from inferfleet.schema.profile import HostPrep
from inferfleet.schema.repository import RepositoryModel
from inferfleet.schema.restart import Restart

Runtime = Literal["compose", "systemd", "process"]
GpuIndex = Annotated[int, Field(ge=0)]


def _profiles_alone(value: object) -> object:
    return {"profiles": value} if isinstance(value, list) else value


class SecretRef(Model):
    """Where a secret comes from; exactly one of the keys. The value itself is never written."""

    env: EnvName | None = Field(default=None, description="Environment variable of the operator.")
    file: RootPath | None = Field(
        default=None, description="File of the operator; its final newline does not count."
    )
    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, description="Program with arguments (no shell) that prints the secret."
    )

    @model_validator(mode="before")
    @classmethod
    def _never_itself(cls, value: object) -> object:
        if isinstance(value, str | int | float):
            raise ValueError(
                "is written out; never write a secret into a file: write {env: NAME} and set that "
                "variable, or {file: PATH}, or {command: [...]}"
            )
        return value

    @model_validator(mode="after")
    def _one(self) -> SecretRef:
        if sum(source is not None for source in (self.env, self.file, self.command)) != 1:
            raise ValueError("needs exactly one of env, file, command")
        return self


class ModelSpec(Model):
    """A model with more than a source: checks, a directory of its own, extra files."""

    source: Text = Field(
        description="hf:ORG/NAME[@REVISION][/FILE], https://..., file:/path/on/operator, "
        "pypi:NAME==VERSION/MEMBER, ollama:NAME, an absolute path on the machine, or the name of "
        "a file in inventory/models/."
    )
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of the one file.")
    files: list[Text] | None = Field(
        default=None, description="Which files of an hf: repository, as glob patterns."
    )
    alias: AliasPath | None = Field(
        default=None,
        description="Directory below the models directory, of links to the model's files; for a "
        "declared model one of its aliases.",
    )
    extra: dict[FileName, Text] = Field(
        default={}, description="Files, with their text, that only the alias directory has."
    )


class Volume(Model):
    """A directory of the machine, or a named volume, inside the container."""

    source: VolumeSource = Field(description="Absolute path on the machine, or a volume's name.")
    target: AbsolutePath = Field(description="Absolute path in the container.")
    read_only: bool = Field(default=True, description="Whether the container may not write there.")


class Build(Model):
    """Build the image on the machine from a context directory there."""

    context: AbsolutePath = Field(description="Directory on the machine.")
    dockerfile: Text | None = Field(default=None, description="Relative to the context.")


class ModelFile(Model):
    """An Ollama Modelfile: parameters and system prompt laid over the service's model."""

    parameters: dict[Name, Scalar | list[Scalar]] = Field(
        default={}, description="PARAMETER lines, such as num_ctx; a list repeats the line."
    )
    system: Text | None = Field(default=None, description="System prompt.")
    template: Text | None = Field(default=None, description="Prompt template.")


class ServiceHealth(Model):
    """How `health` asks the service."""

    probe: Probe | None = Field(
        default=None, description="The request that proves it ready; default: the kind's."
    )

    deadline: Duration | None = Field(
        default=None, description="Time in which one token has to come; default: the kind's."
    )


ModelName = Annotated[
    str, Matching("[A-Za-z0-9][A-Za-z0-9._-]*", "a model's name", "use letters, digits, . _ -")
]
Capability = Annotated[str, Matching("[A-Z][A-Z_]+", "a capability", "write it as SYS_ADMIN")]


class Service(Model):
    """One named thing that runs on the machine."""

    kind: Name = Field(description="Name of a file in services/.")
    runtime: Runtime | None = Field(
        default=None, description="What keeps it running; default: the machine's."
    )
    model: Text | ModelSpec | None = Field(
        default=None,
        description="What it serves: the name of a file in inventory/models/, a source, or a "
        "mapping with source and checks.",
    )
    served_name: ServedName | None = Field(
        default=None, description="Name under which clients ask for the model."
    )
    port: Port | None = Field(default=None, description="Port on the machine; default: the kind's.")
    ports: dict[Name, Port] = Field(
        default={}, description="More ports on the machine, by the names that the kind gives them."
    )
    bind: Address | None = Field(
        default=None, description="Address that the port is published on; default: the machine's."
    )
    image: Text | None = Field(default=None, description="Container image; default: the kind's.")
    build: Build | None = Field(default=None, description="Build the image instead of pulling it.")
    program: Text | None = Field(
        default=None, description="Executable on the machine, for systemd and process."
    )
    options: dict[Flag, Option] = Field(
        default={}, description="Options of the engine by their real names, without dashes."
    )
    env: dict[EnvName, Scalar] = Field(
        default={}, description="Environment variables; nothing secret."
    )
    secrets: list[Text] = Field(
        default=[], description="Secrets of the machine that the service gets as variables."
    )
    files: dict[FileName, Text] = Field(
        default={},
        description="Files of the service, with their text, such as a chat template; options name "
        "them as files/NAME.",
    )
    repository: dict[ModelName, RepositoryModel] = Field(
        default={}, description="Triton: the models of its repository, by name."
    )
    capabilities: list[Capability] = Field(
        default=[], description="Linux capabilities that the container keeps, such as SYS_ADMIN."
    )
    volumes: list[Volume] = Field(default=[], description="Directories it sees besides the models.")
    gpus: Literal["all", "none"] | list[GpuIndex | Text] | None = Field(
        default=None, description="all, none, or a list of GPU numbers or UUIDs."
    )
    cpuset: Cpuset | None = Field(default=None, description="CPUs it runs on, such as 0-11.")
    cpus: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="How many CPUs' worth of time it may use."
    )
    memory: Size | None = Field(default=None, description="Memory limit, such as 96G.")
    shm: Size | None = Field(default=None, description="Size of /dev/shm, such as 2G.")
    start_timeout: Duration | None = Field(
        default=None, description="Time from start to ready, such as 15m; default: the kind's."
    )
    health: ServiceHealth | None = Field(
        default=None, description="How `health` asks it, unless as the kind says."
    )
    restart: Restart | None = Field(
        default=None, description="How it is started again when it ends; default: the machine's."
    )
    autostart: bool = Field(
        default=True, description="Whether `up` starts it when it is not named."
    )
    evict: Literal["allowed", "never"] = Field(
        default="allowed", description="Whether `--evict` may stop it to make room for another."
    )
    admission: Literal["refuse", "warn"] = Field(
        default="refuse",
        description="What `up` does when by the arithmetic there is too little memory for it: "
        "refuse, or say so and start it.",
    )
    modelfile: ModelFile | None = Field(default=None, description="Ollama: a model made from it.")
    gateway: Gateway | None = Field(
        default=None, description="Gateway: which models it offers, and to whom."
    )


class Network(Model):
    """The container network of the machine's compose project."""

    name: Name = Field(description="Its name.")
    subnet: Subnet | None = Field(default=None, description="Such as 172.20.0.0/16.")


class Machine(Model):
    """One machine of the inventory; its name is the file's name."""

    summary: Text | None = Field(default=None, description="One line on what it is for.")
    merge: Merge = True
    address: SshWord | None = Field(
        default=None, description="Host name, IP address or ssh alias; left out: this machine."
    )
    user: SshWord | None = Field(default=None, description="SSH user; default: as ssh decides.")
    port: Port | None = Field(default=None, description="SSH port; default: as ssh decides.")
    jump: SshWord | None = Field(
        default=None, description="SSH jump host: a machine of the inventory or an ssh alias."
    )
    sudo: bool = Field(default=False, description="Whether changes are made through sudo.")
    groups: list[Name] = Field(default=[], description="Groups that --group can name.")
    site: Name | None = Field(
        default=None,
        description="Where it stands: machines of one site copy models from each other.",
    )
    site_address: SshWord | None = Field(
        default=None, description="Address for machines of its site; default: its ssh address."
    )
    hardware: Name | None = Field(
        default=None, description="Name of a file in inventory/hardware/."
    )
    root: RootPath = Field(
        default="/opt/inferbase", description="Where everything lies; ~/ only on this machine."
    )
    models: RootPath | None = Field(default=None, description="Model store; default: ROOT/models.")
    bind: Address | None = Field(
        default=None, description="Address that ports are published on; default: 127.0.0.1."
    )
    runtime: Runtime | None = Field(
        default=None, description="What keeps services running, unless they say otherwise."
    )
    network: Network | None = Field(default=None, description="Container network.")
    restart: Restart | None = Field(
        default=None, description="How services that end by themselves are started again."
    )
    hostprep: (
        Annotated[
            HostPrep,
            BeforeValidator(_profiles_alone, json_schema_input_type=list[Name] | HostPrep),
        ]
        | None
    ) = Field(
        default=None,
        description="How the host is prepared; a list alone names profiles.",
    )
    secrets: dict[EnvName, SecretRef] = Field(
        default={}, description="Secrets by name, each a reference: env, file or command."
    )
    services: dict[Name, Service] = Field(default={}, description="What runs here, by name.")

    @property
    def local(self) -> bool:
        """True for the machine that inferbase itself runs on."""
        return self.address is None
