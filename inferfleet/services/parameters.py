"""Parameters of a service's Modelfile against what its kind says that the engine knows; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from inferfleet.errors import FleetError
from inferfleet.names import name_hint
from inferfleet.schema.kind import Kind, ParameterType
from inferfleet.schema.machine import Service
from inferfleet.schema.view import View


def check_parameters(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    """Unknown parameters, and values that the engine would refuse only when it loads the model.

    The API of Ollama takes any parameter: unknown ones have no effect, wrong types end the first
    request.
    """
    if service.modelfile is None or kind.parameters is None:
        return
    for parameter, value in service.modelfile.parameters.items():
        path = ("services", name, "modelfile", "parameters", parameter)
        if told := wrong_parameter(service.kind, kind.parameters, parameter, value):
            yield view.error(path, *told, key=parameter not in kind.parameters)


def wrong_parameter(
    kind: str, known: Mapping[str, ParameterType], parameter: str, value: object
) -> tuple[str, str] | None:
    """What is wrong with a parameter of this name and value, and what to do about it."""
    wanted = known.get(parameter)
    if wanted is None:
        hint = name_hint(parameter, known, "parameters")
        return f"kind {kind} has no such parameter", hint
    return None if _fits(value, wanted) else (f"should be {wanted}", "")


def _fits(value: object, wanted: ParameterType) -> bool:
    match wanted:
        case "true or false":
            return isinstance(value, bool)
        case "a whole number":
            return isinstance(value, int) and not isinstance(value, bool)
        case "a number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            texts = value if isinstance(value, list) else [value]
            return all(isinstance(text, str) for text in texts)
