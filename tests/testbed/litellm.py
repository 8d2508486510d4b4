"""Real LiteLLM out of wheels: its proxy in a virtual environment of its own, 550 MB.

Too heavy for every run: tests that need it are slow ones, and build it once. Run as
`python3 -m testbed.litellm` to build it and print its folder.
"""

from __future__ import annotations

from pathlib import Path

from testbed.wheels import environment

# The version that the benchmark of the gateway compares with.
WHEEL = "litellm[proxy]==1.106.*"


def build() -> Path:
    """The environment, built when it is not there."""
    return environment("litellm", WHEEL)


if __name__ == "__main__":
    print(build())
