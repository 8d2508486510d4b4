"""Where a task meets the user: one place that prints errors and sets the exit code."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from inferfleet.errors import FAILED, USAGE, FleetError, FleetErrors

HOST = "machine of the inventory, or all; repeatable; default: local"
GROUP = "all machines of a group; repeatable"
SERVICE = "only this service; repeatable"
FORMAT = "table (default) or json"
YES = "do not ask before changing something"
HELP = {"host": HOST, "group": GROUP, "service": SERVICE, "format": FORMAT, "yes": YES}


class Verb(Task[Any]):
    """A task whose options have only the short flags it names: -h stays help everywhere."""

    shorts: Mapping[str, str] = {}

    def arg_opts(self, name: str, default: Any, taken_names: set[str]) -> dict[str, Any]:
        options = super().arg_opts(name, default, taken_names)
        if name in self.shorts:
            options["names"] = [*options["names"], self.shorts[name]]
        return options


def verb(**options: Any) -> Callable[[Callable[..., Any]], Verb]:
    """An Invoke task whose FleetErrors become one message and an exit code.

    help: texts of options beyond the common ones; shorts: option -> its one-letter flag;
    iterable: options besides host, group and service that may be repeated; name: the task's
    name if it is not the function's.
    """
    extra = options.pop("help", {})
    shorts = options.pop("shorts", {})
    repeated = {"host", "group", "service", *options.pop("iterable", ())}

    def decorate(function: Callable[..., Any]) -> Verb:
        names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        texts = {option(name): {**HELP, **extra}.get(option(name), "") for name in names}

        @functools.wraps(function)
        def run(c: Context, *args: Any, **kwargs: Any) -> Any:
            collect_less()
            check_format(kwargs.get("format", "table"))
            try:
                code = function(c, *args, **kwargs)
            except FleetError as error:
                report(error)
                raise Exit(code=error.code) from None
            except KeyboardInterrupt:
                sys.stderr.write("interrupted\n")
                raise Exit(code=130) from None
            except BrokenPipeError:
                raise Exit(code=FAILED) from None
            if code:
                raise Exit(code=int(code))
            return None

        made = Verb(
            run,
            iterable=[name for name in names if name in repeated],
            help={name: text for name, text in texts.items() if text},
            auto_shortflags=False,
            **options,
        )
        made.shorts = shorts
        return made

    return decorate


def option(name: str) -> str:
    """A parameter's name as an option: for_ is --for, which Python keeps for itself."""
    return name.strip("_").replace("_", "-")


def collect_less() -> None:
    """Spare a short process most of the search for garbage, a quarter of its time otherwise.

    Importing makes many objects and drops few: looking through them every 700, as Python does,
    takes 0.05 s of a plan without changes, and looking through all of them at the end 0.1 s.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def report(error: FleetError, redact: Callable[[str], str] = str) -> None:
    """The only printer of errors: `error: file:line:col: what`, then `hint: ...`, on stderr."""
    for one in error.errors if isinstance(error, FleetErrors) else [error]:
        sys.stderr.write(redact(f"error: {as_called(str(one))}\n"))
    sys.stderr.flush()


def as_called(text: str) -> str:
    """The text with commands such as `invoke up` as this user types them: `invoke infra.up`."""
    from inferfleet.tasks import ns

    names = {name for names in ns.task_names.items() for name in (names[0], *names[1])}
    for word in sys.argv[1:]:
        # hostprep.apply before apply.
        for name in sorted(names, key=len, reverse=True):
            if word.endswith(f".{name}") and word not in names:
                mount = word.removesuffix(name)
                return re.sub(r"\binvoke (?=[a-z])", f"invoke {mount}", text)
    return text


def check_format(form: str) -> None:
    """Raises Exit(64) for a --format that does not exist."""
    if form not in {"table", "json"}:
        report(FleetError(f"--format {form}: unknown format", hint="table or json", code=USAGE))
        raise Exit(code=USAGE)


def overlay(c: Context) -> str | None:
    """The overlay folder that the consumer's invoke.yaml names, if any.

    A relative path counts from that file's folder; one from the environment
    (INVOKE_INFERBASE_OVERLAY) from where invoke is run.
    """
    section = c.config.get("inferbase")
    named = section.get("overlay") if section else None
    if not named:
        return None
    named = str(named)
    # Invoke merges its files; only its own record of each says which one spoke.
    for level in ("runtime", "project", "user", "system"):
        said = getattr(c.config, f"_{level}", {}).get("inferbase") or {}
        file = getattr(c.config, f"_{level}_path", None)
        if file and said.get("overlay") == named:
            return os.path.join(os.path.dirname(os.path.abspath(file)), os.path.expanduser(named))
    return named
