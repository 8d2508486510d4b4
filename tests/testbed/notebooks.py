"""Real JupyterLab, MLflow and PostgreSQL out of wheels: one environment of its own, 950 MB.

Too heavy for every run: tests that need it are slow ones, and build it once. Run as
`python3 -m testbed.notebooks` to build it and print its folder.
"""

from __future__ import annotations

from pathlib import Path

from testbed.wheels import environment

# The versions that services/jupyter.yaml and services/mlflow.yaml know the options of.
WHEELS = ["jupyterlab==4.6.6", "mlflow==3.17.2"]
# PostgreSQL 16 with its programs, and the driver that MLflow's full image brings.
DATABASE = ["pgserver==0.1.4", "psycopg2-binary==2.9.13"]


def build() -> Path:
    """The environment, built when it is not there."""
    return environment("notebooks", *WHEELS, *DATABASE)


def postgresql(environment: Path) -> Path:
    """The folder of PostgreSQL's programs."""
    return next(environment.glob("lib/python3*/site-packages/pgserver/pginstall/bin"))


if __name__ == "__main__":
    print(build())
