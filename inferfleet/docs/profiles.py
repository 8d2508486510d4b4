"""What the documents say of host profiles: tables of the reference, lists of the guides."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from inferfleet.docs.text import table
from inferfleet.hostprep.merge import profile_settings, settings_of
from inferfleet.hostprep.setting import Wanted
from inferfleet.hostprep.verify import command_of, verification
from inferfleet.release.write import bring_up_to_date
from inferfleet.schema.fields import Model, kebab
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.profile import Settings

GUIDES = "docs/how-to"
# A list of settings in a guide: the words are kinds (gpu) or settings (cmdline.iommu).
_BEGIN = r"<!-- settings: ([a-z0-9_./ -]+); made by `python -m inferfleet.docs` -->\n"
_END = "<!-- end of settings -->"
_LIST = re.compile(f"({_BEGIN}).*?({_END})", re.DOTALL)
_WIDTH = 96


def profile_tables(fleet: Fleet) -> list[str]:
    """The profiles that are here, each setting with reason, source, cost and verification."""
    lines = ["## Profiles that are here", ""]
    for name, profile in sorted(fleet.profiles.items()):
        rows = []
        for wanted in profile_settings(name, profile):
            found = verification(wanted)
            rows.append(
                [
                    f"`{wanted.name}`",
                    f"`{shown(wanted.value)}`",
                    wanted.why,
                    wanted.source,
                    wanted.cost or "-",
                    f"`{found.command}` shows {found.shows}",
                ]
            )
        lines += [f"### {name}", "", f"{profile.summary}.", ""]
        lines += table(["setting", "value", "why", "source", "cost", "verify"], rows)
    return lines


def guides(root: Path, fleet: Fleet) -> dict[str, str]:
    """Name in root/GUIDES -> the text of each guide that has lists of settings, made anew."""
    found = {}
    for path in sorted((root / GUIDES).glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if _LIST.search(old):
            found[path.name] = _LIST.sub(lambda m: m[1] + settings_list(fleet, m[2]) + m[3], old)
    return found


def write_guides(root: Path, fleet: Fleet) -> list[str]:
    """Bring the lists in the guides up to date; the names of the guides that were not."""
    return bring_up_to_date(root / GUIDES, guides(root, fleet))


def settings_list(fleet: Fleet, selection: str) -> str:
    """The settings of these kinds or names, as a fenced block."""
    wishes = list(_wishes(fleet))
    entries = [
        entry
        for word in selection.split()
        for name, meaning in _names(word, wishes)
        for entry in _entry(name, meaning, [w for w in wishes if w.name == name])
    ]
    return "\n".join(["", "```text", *entries[:-1], "```", "", ""])


def shown(value: Any) -> str:
    """A value as one would write it in a file, on one line; keys that are not set left out."""
    if isinstance(value, Mapping):
        pairs = (f"{key}: {shown(one)}" for key, one in value.items() if one not in (None, False))
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _wishes(fleet: Fleet) -> Iterator[Wanted]:
    for name, profile in sorted(fleet.profiles.items()):
        yield from profile_settings(name, profile)
    for name, machine in sorted(fleet.machines.items()):
        for kind, key, value in settings_of(machine.hostprep) if machine.hostprep else ():
            yield Wanted(kind, key, value, origin=f"machine {name}")


def _names(word: str, wishes: list[Wanted]) -> Iterator[tuple[str, str]]:
    """(setting, its meaning) of a kind or of one setting, those that nobody sets included."""
    kind, dot, key = word.partition(".")
    annotation = Settings.model_fields[kind.replace("-", "_")].annotation
    parts = () if get_origin(annotation) is dict else get_args(annotation)
    for model in (part for part in parts if issubclass(part, Model)):
        for field, info in model.model_fields.items():
            if not dot or kebab(field) == key:
                yield f"{kind}.{kebab(field)}", info.description or ""
    open_names = {wish.name for wish in wishes if wish.kind == kind and not parts}
    for name in sorted(open_names):
        if not dot or name == word:
            yield name, ""


def _entry(name: str, meaning: str, wishes: list[Wanted]) -> Iterator[str]:
    yield name
    yield from _lines("is", meaning)
    values: dict[str, list[str]] = {}
    for wish in wishes:
        values.setdefault(shown(wish.value), []).append(wish.origin)
    for value, origins in values.items():
        yield from _lines("value", f"{value}  ({', '.join(origins)})")
    for word in ("why", "source", "cost"):
        for told in dict.fromkeys(getattr(wish, word) for wish in wishes):
            yield from _lines(word, told)
    if not wishes:
        yield from _lines("verify", command_of(name))
    for number, (command, shows) in enumerate(dict.fromkeys(map(verification, wishes))):
        if not number:
            yield f"    {'verify':8}{command}"
        yield from _lines("shows", shows)
    yield ""


def _lines(word: str, told: str) -> list[str]:
    """A labelled paragraph; nothing for an empty one."""
    indent = " " * 12
    return textwrap.wrap(
        told, _WIDTH, initial_indent=f"    {word:8}", subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
