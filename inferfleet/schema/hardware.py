"""A hardware file: inventory/hardware/NAME.yaml. Numbers with their unit in the key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inferfleet.schema.fields import Matching, Merge, Model, Size, Text

Count = Annotated[int, Field(ge=1)]


class Cpu(Model):
    """The processor."""

    model: Text | None = Field(default=None, description="Name, for people.")
    cores: Count | None = Field(default=None, description="Physical cores.")
    threads: Count | None = Field(default=None, description="Logical CPUs, as the kernel counts.")
    arch: Literal["x86_64", "aarch64"] | None = Field(default=None, description="As uname -m says.")


class Gpu(Model):
    """One model of GPU and how many of it."""

    name: Text = Field(description="Name, for people.")
    match: list[Text] = Field(
        default=[], description="Parts of the name that nvidia-smi prints, to recognise it."
    )
    count: Count = Field(default=1, description="How many of it the machine has.")
    memory: Size | None = Field(
        default=None, description="Of one GPU; left out where CPU and GPU share one memory."
    )
    bandwidth_gbs: float | int | None = Field(
        default=None, description="Memory bandwidth in 10^9 bytes a second."
    )
    compute_capability: (
        Annotated[str, Matching(r"[0-9]+\.[0-9]+", "a compute capability", 'write it as "12.0"')]
        | None
    ) = Field(default=None, description="CUDA compute capability, in quotes.")
    power_watt: float | int | None = Field(default=None, description="Rated board power in watt.")
    min_driver: Text | None = Field(default=None, description="Oldest driver that knows it.")
    min_cuda: Text | None = Field(default=None, description="Oldest CUDA that builds for it.")
    open_kernel_modules: Literal["required", "supported", "unsupported"] | None = Field(
        default=None, description="Whether the driver's open kernel modules drive it."
    )
    mig_profiles: dict[Text, Count] = Field(
        default={}, description="MIG profiles and how many of each fit at once."
    )


class Hardware(Model):
    """A model of machine: memory, processor, GPU, quirks with their source."""

    summary: Text = Field(description="One line on what it is.")
    merge: Merge = True
    unified: bool = Field(
        default=False, description="CPU and GPU share one memory; there is no separate GPU memory."
    )
    memory: Size | None = Field(default=None, description="Main memory, as the OS sees it.")
    reserve: Size | None = Field(default=None, description="Memory kept for the host itself.")
    cpu: Cpu = Field(default=Cpu(), description="Processor of the machine.")
    gpu: Gpu | None = Field(default=None, description="The GPUs; left out: none.")
    supports: list[Text] = Field(
        default=[], description="Data types and features that engines may use."
    )
    lacks: list[Text] = Field(
        default=[], description="Data types and features that it does not have."
    )
    quirks: list[Text] = Field(default=[], description="One sentence for each known trap.")
    sources: list[Text] = Field(default=[], description="Where the numbers come from.")
