"""What is there of the models of a machine: a part of its observation, and its reading."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import single_file
from inferfleet.models.stamp import Stamp, parse_stamp

# Size of a huge page on x86_64 and on arm64 with 4 KiB pages.
PAGE = 2 << 20

# One line per model: key, what the directory is, its stamp, then "size path" of each file.
# One line per alias: key, "alias", 1 or 0. Only names, sizes and small text files are read.
_FUNCTIONS = r"""
model_dir() {
    kind=absent stamp=
    if [ -h "$2" ] && [ -d "$2" ]; then kind=$(readlink "$2")
    elif [ -e "$2" ]; then kind=foreign
    else for part in "${2%/*}/.${2##*/}@"*; do [ ! -d "$part" ] || kind=partial; done
    fi
    if [ -f "$3" ]; then IFS= read -r stamp <"$3"; fi
    printf 'model\t%s\t%s\t%s' "$1" "$kind" "$stamp"
    case $kind in absent | partial | foreign) ;; *)
        (cd "$2/" && find . -type f -exec stat -c '%s %n' {} +) | while IFS= read -r line; do
            printf '\t%s' "$line"
        done ;;
    esac
    printf '\n'
}
model_path() {
    if [ -e "$2" ]; then kind=foreign; else kind=absent; fi
    printf 'model\t%s\t%s\t\n' "$1" "$kind"
}
alias_links() {
    for entry in "$2"/* "$2"/.[!.]*; do
        name=${entry##*/}
        case "$4" in *"/$name/"*) continue ;; esac
        if [ -e "$entry" ] && ! [ "$3/$name" -ef "$entry" ]; then same=0; fi
    done
    for entry in "$3"/* "$3"/.[!.]*; do
        if [ -h "$entry" ] && [ ! -e "$entry" ]; then same=0; fi
    done
}
alias_file() {
    if ! [ "$3/${2##*/}" -ef "$2" ]; then same=0; fi
}
alias_extra() {
    if [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]; then return; fi
    same=0
}
alias_end() { printf 'model\t%s\talias\t%s\n' "$1" "$same"; }
"""


@dataclass(frozen=True)
class ModelState:
    """What was found of one model.

    present: all files are there (path sources: something is there). stamp: None when
    inferbase did not put it there. bytes: of the files found. alias_ok: every alias leads to
    the files and has its own ones. partial: some of it is there, and a run will complete it.
    store: name of the directory that the model's link leads to, "" when there is none.
    """

    key: str
    present: bool
    stamp: Stamp | None
    bytes: int
    alias_ok: bool
    partial: bool = False
    store: str = ""


def observe_script(needs: Iterable[ModelNeed]) -> str:
    """POSIX sh that prints lines for parse_observed; changes nothing, "" without needs."""
    calls: list[str] = []
    for need in needs:
        if need.source.scheme == "ollama":
            continue
        if need.directory:
            call = ["model_dir", need.key, need.directory, stamp_path(need)]
        else:
            call = ["model_path", need.key, need.source.name]
        if shlex.join(call) not in calls:
            calls.append(shlex.join(call))
        calls += _alias_calls(need)
    return _FUNCTIONS + "\n".join(calls) + "\n" if calls else ""


def stamp_path(need: ModelNeed) -> str:
    """Where the stamp of a model lies on the machine."""
    return f"{need.models_dir}/.inferbase/{need.key}.json"


def parse_observed(lines: Iterable[str]) -> Mapping[str, ModelState]:
    """The states in an observation's lines, by key; other lines are passed over."""
    states: dict[str, ModelState] = {}
    broken: set[str] = set()
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if len(fields) < 4 or fields[0] != "model":
            continue
        if fields[2] == "alias":
            if fields[3] != "1":
                broken.add(fields[1])
            continue
        states[fields[1]] = _state(fields[1], fields[2], parse_stamp(fields[3]), fields[4:])
    return {
        key: replace(state, alias_ok=False) if key in broken else state
        for key, state in states.items()
    }


def complete(stamp: Stamp | None, link: str, sizes: Mapping[str, int]) -> bool:
    """True when the stamp speaks of the directory that is linked and all its files are there.

    Files beside them do not count: an engine or a person may have put them there. One that
    models.pin holds in huge pages is as long as its pages.
    """
    if stamp is None or stamp.store != link:
        return False
    return all(sizes.get(f.path) in (f.size, -(-f.size // PAGE) * PAGE) for f in stamp.files)


def fits(need: ModelNeed, stamp: Stamp) -> bool:
    """Whether a record has the checksums that the need asks for."""
    have = {file.path: file.sha256 for file in stamp.files}
    if any(have.get(path) != wanted for path, wanted in need.checksums.items()):
        return False
    return not need.sha256 or need.sha256 in have.values()


def in_order(need: ModelNeed, state: ModelState | None) -> bool:
    """Whether the very files that the need asks for are there, whatever becomes of its aliases."""
    if state is None or not state.present:
        return False
    return state.stamp is None or fits(need, state.stamp)


def _state(key: str, kind: str, stamp: Stamp | None, entries: list[str]) -> ModelState:
    if kind == "foreign":
        return ModelState(key, True, None, 0, True)
    sizes: dict[str, int] = {}
    for entry in entries:
        size, _, path = entry.partition(" ")
        if size.isdigit():
            sizes[path.removeprefix("./")] = int(size)
    whole = complete(stamp, kind, sizes)
    partial = not whole and kind != "absent"
    store = "" if kind in {"absent", "partial"} else kind
    return ModelState(key, whole, stamp, sum(sizes.values()), True, partial, store)


def _alias_calls(need: ModelNeed) -> list[str]:
    calls = []
    real = need.directory or need.source.name
    verb = "alias_links"
    if not need.directory and single_file(need.source):
        verb = "alias_file"
    for alias, own in need.aliases.items():
        extra = "/" + "".join(f"{name}/" for name in sorted(own))
        calls += ["same=1", shlex.join([verb, need.key, real, alias, extra])]
        for name, text in own.items():
            digest = sha256(text.encode()).hexdigest()
            calls.append(shlex.join(["alias_extra", f"{alias}/{name}", digest]))
        calls.append(shlex.join(["alias_end", need.key]))
    return calls
