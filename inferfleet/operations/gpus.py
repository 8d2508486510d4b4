"""The GPUs of one machine: through NVML on this one, through its nvidia-smi on another."""

from __future__ import annotations

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import GpuFacts
from inferfleet.gpu.query import SECONDS, gpu_script, parse_answer
from inferfleet.gpu.trouble import explain
from inferfleet.run.session import Session


def read_gpus(session: Session, local: bool, expected: bool) -> GpuFacts:
    """One round trip. expected: the hardware file says that there is a GPU.

    Raises FleetError when the driver does not answer, or is not there although a GPU is expected.
    """
    facts = _through_library() if local else None
    release = session.release
    pids = None
    if facts is not None:
        pids = tuple(process.pid for gpu in facts.gpus for process in gpu.processes)
    script = gpu_script(release.root, release.project, pids)
    result = session.host.run(script, sudo=session.sudo, timeout=SECONDS)
    try:
        found = parse_answer(result.out, release.units, facts)
    except FleetError as error:
        raise FleetError(f"{session.host.name}: {error.what}", hint=error.hint) from None
    if expected and not found.gpus:
        why = explain("", None) if found.note else explain("no devices were found", 0)
        raise FleetError(f"{session.host.name}: {why.what}", hint=why.hint)
    return found


def _through_library() -> GpuFacts | None:
    """None where NVML cannot be loaded: nvidia-smi is asked then."""
    from inferfleet.gpu.local import NoLibrary, local_gpus

    try:
        return local_gpus()
    except NoLibrary:
        return None
