"""How this repository checks itself: `nox` runs lint, types, tests and docs."""

import nox

nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format (ruff)."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types (mypy --strict)."""
    session.install("-e", ".[local,dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that needs no test machines."""
    session.install("-e", ".[local,dev]")
    session.run(
        "python", "-m", "pytest", "-n", "auto", "-m", "not e2e and not vllm", *session.posargs
    )


@nox.session
def e2e(session: nox.Session) -> None:
    """Real machines: needs root, Docker and what .ci/install installs."""
    session.install("-e", ".[local,dev]")
    words = ("-n", "auto", "-m", "e2e", *session.posargs)
    session.run("python", "-m", "pytest", *words, env={"CI": "true"})


@nox.session
def vllm(session: nox.Session) -> None:
    """Real vLLM on the CPU, in an environment of its own of 3.4 GB, built once; needs e2e's."""
    session.install("-e", ".[local,dev]")
    session.run("python", "-m", "testbed.vllm", env={"PYTHONPATH": "tests"})
    session.run("python", "-m", "pytest", "-m", "vllm", "-s", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The generated reference is current; every task, option and key is documented."""
    session.install("-e", ".[local,dev]")
    session.run("python", "-m", "pytest", "tests/docs", *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Compare with peers in one run; writes benchmarks/results/."""
    session.install("-e", ".[local,dev]")
    session.run("python", "-m", "benchmarks", *session.posargs)
