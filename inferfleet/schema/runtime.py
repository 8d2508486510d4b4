"""How a kind of service runs: as a container, as a native unit, as a supervised process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferfleet.schema.fields import AbsolutePath, Duration, Model, Name, Port, Size, Text
from inferfleet.schema.placeholders import Argv, EnvName, Template, placeholders


class HealthCheck(Model):
    """The container's health check."""

    test: list[Template] = Field(description="Command as Docker takes it, with CMD in front.")
    interval: Duration = Field(default=10, description="Time between two checks.")
    timeout: Duration = Field(default=5, description="Time after which a check has failed.")
    retries: Annotated[int, Field(ge=1)] = Field(
        default=3, description="Failures in a row that make the container unhealthy."
    )


class ExtraPort(Model):
    """One more port of a container, besides the one that clients of the service use."""

    port: Port = Field(description="Where it listens inside the container.")
    default: Port = Field(description="Port on the machine of a service that names none.")


class ComposeKind(Model):
    """The service as a container."""

    image: Text = Field(description="Image used without a GPU, its tag pinned.")
    image_cuda: Text | None = Field(default=None, description="Image used with a GPU.")
    entrypoint: list[Template] | None = Field(
        default=None, description="Replaces the image's entrypoint."
    )
    command: Argv = Field(default=[], description="Arguments of the entrypoint.")
    port: Port = Field(description="Port that it listens on inside the container.")
    ports: dict[Name, ExtraPort] = Field(
        default={}, description="More ports of the container, each with a name."
    )
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
    binds: dict[AbsolutePath, AbsolutePath] = Field(
        default={},
        description="Directories of the machine that appear read-only: path in the container, and "
        "path on the machine.",
    )
    host_network: bool = Field(
        default=False,
        description="It sees the machine's network interfaces, and listens on {bind} and {port}.",
    )
    host_pid: bool = Field(default=False, description="It sees the machine's processes.")
    repository: AbsolutePath | None = Field(
        default=None, description="Where the service's model repository appears, for Triton."
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
    healthcheck: HealthCheck | None = Field(
        default=None,
        description="How Docker checks the container; left out where nothing in it can ask.",
    )
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
    state: bool = Field(
        default=False, description="The program keeps data that must survive in {state}."
    )
    whole_machine: bool = Field(
        default=False,
        description="The program reports on the whole machine: it sees the processes of others, "
        "and may read home directories.",
    )
    tasks: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="Most processes and threads it may have."
    )
    stop_timeout: Duration = Field(default=30, description="Time between TERM and KILL.")


class ProcessKind(Model):
    """The service as a supervised background process."""

    command: Argv = Field(
        description="Command line; with {program} in it a service has to name its program."
    )
    embedded: Argv | None = Field(
        default=None,
        description="Command line of a service without a program, on the local machine only, where "
        "{embedded} is known.",
    )
    environment: dict[EnvName, Template] = Field(
        default={}, description="Environment variables of every service of the kind."
    )

    @property
    def needs_program(self) -> bool:
        """Whether its command runs what a service has to name."""
        groups = ([part] if isinstance(part, str) else part for part in self.command)
        return any("program" in placeholders(word) for group in groups for word in group)
