"""Steps of an undo that also succeed where there is nothing to undo: a run may have been cut off
before it did what they take back. What is there and cannot be taken back is still a failure."""

from __future__ import annotations

from collections.abc import Iterable

from inferfleet.hostprep.steps import Run

UNLOAD = (
    'failed=0; for name; do [ ! -d "/sys/module/$name" ] || rmmod -- "$name" || failed=1; done; '
    "exit $failed"
)
RMDIR = (
    'failed=0; for path; do [ ! -d "$path" ] || rmdir --ignore-fail-on-non-empty -- "$path" || '
    "failed=1; done; exit $failed"
)
UMOUNT = '! mountpoint -q -- "$1" || umount -- "$1"'
MOUNT = 'mountpoint -q -- "$4" || mount -t "$1" -o "$2" -- "$3" "$4"'
# The first word is the path as /proc/swaps writes it.
SWAPON = (
    'while read -r name rest; do [ "$name" != "$1" ] || exit 0; done </proc/swaps; '
    'shift; exec swapon "$@"'
)
SCRIPT = '[ ! -e "$1" ] || exec sh "$@"'


def unload(modules: Iterable[str]) -> Run:
    """Unload those of these modules that are loaded, in this order."""
    return _sh(UNLOAD, *modules)


def rmdir(paths: Iterable[str]) -> Run:
    """Remove those of these folders that are there and empty, in this order."""
    return _sh(RMDIR, *paths)


def umount(path: str) -> Run:
    """Unmount what is mounted there."""
    return _sh(UMOUNT, path)


def mount(kind: str, options: str, what: str, where: str) -> Run:
    """Mount it again where nothing is mounted."""
    return _sh(MOUNT, kind, options, what, where)


def swapon(shown: str, *arguments: str) -> Run:
    """swapon, unless /proc/swaps has a line of this name."""
    return _sh(SWAPON, shown, *arguments)


def script(path: str, *arguments: str) -> Run:
    """Run a script of ours, if it is there."""
    return _sh(SCRIPT, path, *arguments)


def _sh(text: str, *arguments: str) -> Run:
    return Run(("sh", "-c", text, "inferbase", *arguments))
