"""A value that a file does not give because of a mistake in it: who looks at it learns nothing.

Checks run over what is still readable of files with mistakes. One that comes upon a value which
could not be read would judge by a default that nobody chose; so the value refuses every use but
being there, and the check is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class UnreadableError(Exception):
    """A check needs a value that could not be read. Never leaves the checks."""


class _Unreadable:
    """Raises UnreadableError whatever is asked of it."""

    def _refuse(self, *_: object) -> NoReturn:
        raise UnreadableError

    __getattr__ = __bool__ = __eq__ = __hash__ = __str__ = __format__ = _refuse
    __iter__ = __len__ = __contains__ = __getitem__ = __lt__ = __gt__ = __add__ = _refuse
    __le__ = __ge__ = __int__ = __index__ = _refuse

    # What isinstance asks, whose answer would be as good as a value.
    __class__ = property(_refuse)

    def __repr__(self) -> str:
        return "<unreadable>"


UNREADABLE: Any = _Unreadable()


def readable(found: Iterable[T]) -> Iterator[T]:
    """What comes before the first value that could not be read."""
    try:
        yield from found
    except UnreadableError:
        return


def known(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What read returns; None where it needs a value that could not be read."""
    try:
        return read(*args, **kwargs)
    except UnreadableError:
        return None
