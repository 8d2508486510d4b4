"""Options and variables as a service was given them, read the way the engines read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite

from inferfleet.errors import FleetError

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmMgGtT]?)(i?[bB])?")
# vLLM's human-readable integers: a small letter counts by 1000, a large one by 1024.
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Words that engines take in place of a number: their own choice.
CHOICES = ("", "auto", "none", "null")
OFF = ("", "0", "false", "off", "no", "none", "disabled")


class Given:
    """A service's options by any of their names; _ and - are the same."""

    def __init__(self, options: Mapping[str, object], env: Mapping[str, str]) -> None:
        self._options = {
            name.strip("-").replace("_", "-"): value for name, value in options.items()
        }
        self._env = env

    def value(self, *names: str) -> object:
        """The first of these options that is given, a list's last item, else None."""
        for name in names:
            value = self._options.get(name)
            if isinstance(value, list | tuple):
                value = value[-1] if value else None
            if value is not None:
                return value
        return None

    def text(self, *names: str) -> str:
        value = self.value(*names)
        return str(value) if isinstance(value, str | int | float) else ""

    def number(self, *names: str, default: float = 0) -> float:
        """A number as vLLM writes it: 4096, 4K, 1.5g; the default where the engine chooses.

        Raises FleetError for text that is no number.
        """
        value = self.value(*names)
        if value is None or isinstance(value, bool):
            return default
        text = str(value).strip()
        if text.lower() in CHOICES:
            return default
        if match := _NUMBER.fullmatch(text):
            factor = _BINARY.get(match[2]) or _FACTORS[match[2].lower()]
            return float(match[1]) * factor
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not isfinite(number):
            raise FleetError(f"{names[0]}: {text!r} is no number")
        return number

    def whole(self, *names: str, default: int = 0) -> int:
        return int(self.number(*names, default=default))

    def above(self, *names: str, default: int) -> int:
        """As whole; the default for what is not above 0, too."""
        found = self.whole(*names)
        return found if found > 0 else default

    def flag(self, *names: str, default: bool = False) -> bool:
        """Whether a switch is on; --no-NAME turns it off."""
        for name in names:
            if self.value(f"no-{name}") not in (None, False):
                return False
            value = self.value(name)
            if value is not None:
                return str(value).lower() not in OFF
        return default

    def variable(self, name: str) -> str:
        return str(self._env.get(name, ""))

    def count(self, name: str, default: float) -> float:
        """A variable that is a number; the default if it is none."""
        match = _NUMBER.fullmatch(self.variable(name).strip())
        return float(match[1]) if match and not match[2] else default
