"""Why an engine did not start, in its own words: patterns that a kind declares; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A log line is data of unknown size; patterns are only tried on its beginning.
LONGEST = 2000
MOST_TOLD = 5
# What the process runtime writes into a log when a service is started by hand.
STARTED = "inferbase: started"
_KEEPER = re.compile(
    r"\S+\.service: |(Start(ing|ed)|Stopp(ing|ed)|Failed to start) (\S+\.service - )?inferbase: "
)
_BEGUN = re.compile(r"Start(ing|ed) (\S+\.service - )?inferbase: ")


@dataclass(frozen=True)
class Failure:
    """match: regular expression, found anywhere in a line. says: what it means, in which {NAME}
    stands for a named group of the match. hint: what to do about it, with the same names. more:
    how many lines after it belong to it."""

    match: str
    says: str
    hint: str = ""
    more: int = 0


@dataclass(frozen=True)
class Cause:
    """What was recognised: the engine's own lines, what they mean, and what to do."""

    says: str
    hint: str
    lines: tuple[str, ...]


def latest(lines: Sequence[str]) -> Sequence[str]:
    """The lines since somebody started the service last; its own restarts belong to that.

    Logs of units and processes go on from one start to the next, and an old failure among them
    says nothing of today's.
    """
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at]
        if line == STARTED:
            return lines[at:]
        # systemd says both; only a start of its own follows a restart job.
        if _BEGUN.match(line) and not any(
            "Scheduled restart job" in before for before in lines[max(at - 4, 0) : at]
        ):
            return lines[at:]
    return lines


def own_words(lines: Sequence[str]) -> list[str]:
    """What the service said itself, without systemd's lines on its starts and ends."""
    return [line for line in lines if not _KEEPER.match(line)]


def find_cause(lines: Sequence[str], failures: Iterable[Failure]) -> Cause | None:
    """The first of these failures that the log speaks of, with all its lines; None for none.

    The order of the failures is their rank: engines print several lines on the way down, and
    the general ones ("failed to load model") say less than the particular ones.
    """
    for failure in failures:
        pattern = re.compile(failure.match)
        found = [
            (at, match)
            for at, line in enumerate(lines)
            if (match := pattern.search(line[:LONGEST]))
        ]
        if found:
            # Attempts repeat themselves, but for the times in front: of each text one stays.
            first = {match.string[match.start() :]: at for at, match in reversed(found)}
            told = [
                line.rstrip()[:LONGEST]
                for at in sorted(first.values())[:MOST_TOLD]
                for line in lines[at : at + 1 + failure.more]
            ]
            groups = {name: text or "" for name, text in found[-1][1].groupdict().items()}
            says, hint = _fill(failure.says, groups), _fill(failure.hint, groups)
            return Cause(says, hint, tuple(told))
    return None


def _fill(text: str, groups: dict[str, str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda match: groups.get(match[1], match[0]).strip(), text)
