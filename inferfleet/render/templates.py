"""The Jinja environment: templates are code, values are data that pass through a filter."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from inferfleet import escape
from inferfleet.errors import USAGE, FleetError, Where


def _defined(escaper: Callable[[Any], str]) -> Callable[[Any], str]:
    """The function as a filter that names a variable which does not exist."""

    def check(value: Any) -> str:
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises jinja2.UndefinedError
        return escaper(value)

    return check


class Templates:
    """Compiled templates of these folders, the first that has a name wins."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([str(path) for path in directories]),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
            extensions=[],
        )
        self._environment.filters.update(
            compose=_defined(escape.compose_value),
            yaml=_defined(escape.yaml_value),
            systemd_word=_defined(escape.systemd_word),
            systemd_path=_defined(escape.systemd_path),
            sh=_defined(shlex.quote),
            modelfile=_defined(escape.modelfile_value),
            nginx=_defined(escape.nginx_value),
        )
        self._environment.globals["systemd_environment"] = escape.systemd_environment

    def render(self, name: str, **values: Any) -> str:
        """The text of a template. Raises FleetError with template:line for its mistakes."""
        try:
            return self._environment.get_template(name).render(values)
        except jinja2.TemplateNotFound as error:
            raise FleetError(
                f"there is no template {error.name}",
                "the engine's templates folder is incomplete, or a template includes a wrong name",
                code=USAGE,
            ) from None
        except jinja2.TemplateSyntaxError as error:
            where = Where(error.filename or error.name or name, error.lineno)
            raise FleetError(f"template: {error.message}", "", where, USAGE) from None
        except FleetError:
            raise
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise FleetError(f"template: {error}", "", self._place(error, name), USAGE) from None

    def _place(self, error: BaseException, name: str) -> Where:
        """Jinja rewrites tracebacks: the last frame of a template file is the line at fault."""
        folders = tuple(self._environment.loader.searchpath)  # type: ignore[union-attr]
        place = Where(name)
        trace = error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file.startswith(folders):
                place = Where(file, trace.tb_lineno)
            trace = trace.tb_next
        return place
