"""Command lines made from scripts: quoting for any login shell, sudo, watched streams."""

from __future__ import annotations

from dataclasses import dataclass

# Linux refuses a single argument of 128 KiB (MAX_ARG_STRLEN in include/uapi/linux/binfmts.h),
# and a login shell gets the whole line as one.
ARGUMENT_LIMIT = 100_000


@dataclass(frozen=True)
class Command:
    """A command line for a login shell, and the bytes its standard input has to begin with."""

    line: str
    prefix: bytes = b""


def quote(text: str) -> str:
    """Quote text as one word for bash, dash, zsh and fish alike.

    fish reads backslashes inside single quotes, POSIX shells do not; both agree on a backslash
    or a single quote between double quotes, so these two never stand between single quotes.
    """
    word = text.replace("'", "\0").replace("\\", "'\"\\\\\"'").replace("\0", "'\"'\"'")
    return f"'{word}'"


def plain(script: str) -> Command:
    """Run script with sh."""
    argument, prefix = _argument(script)
    return Command(f"sh -c {argument}", prefix)


def as_root(script: str, *, mark: str, password: bool) -> Command:
    """Run script with sh as root, through sudo unless the login is root already.

    Standard error shows the line `mark` when the script is about to start. With password=True
    sudo reads the password from standard input, after the prompt "mark:" on standard error.
    The line `mark` on standard input then ends what is kept from the script, so it makes no
    difference whether sudo took the password line or left it. `read` takes no byte too many.
    """
    skip = f'while IFS= read -r line && [ "$line" != {mark} ]; do :; done\n' if password else ""
    argument, prefix = _argument(script, f"echo {mark} >&2\n{skip}")
    sudo = f"sudo -S -p {mark}:" if password else "sudo -n"
    wrapper = f'if [ "$(id -u)" = 0 ]; then exec sh -c "$1"; else exec {sudo} -- sh -c "$1"; fi'
    return Command(f"sh -c {quote(wrapper)} sh {argument}", prefix)


def on_terminal(script: str, *, sudo: bool) -> str:
    """Command line for a script on a terminal, where sudo may ask for the password itself."""
    if not sudo:
        return f"sh -c {quote(script)}"
    wrapper = 'if [ "$(id -u)" = 0 ]; then exec sh -c "$1"; else exec sudo -- sh -c "$1"; fi'
    return f"sh -c {quote(wrapper)} sh {quote(script)}"


def watched(script: str) -> str:
    """Script that ends with its own standard input and writes errors to standard output.

    sshd lets a command without a terminal live on when its client goes away; here a reader of
    standard input sees the end and stops the script. `timeout` (coreutils) gives the script a
    process group of its own, passes the signal to all of it, and kills after five seconds. The
    whole group is signalled: `timeout` itself forgets a child that it has only just started.
    """
    return (
        "exec 3<&0\n"
        f"timeout -k 5 0 sh -c {quote(script)} </dev/null 2>&1 3<&- &\n"
        "child=$!\n"
        '{ while read -r line; do :; done; kill -- "-$child" || kill "$child"; } '
        "<&3 >/dev/null 2>&1 &\n"
        "watcher=$!\n"
        "exec 3<&-\n"
        'wait "$child"; status=$?\n'
        'kill "$watcher" 2>/dev/null\n'
        'exit "$status"\n'
    )


def _argument(script: str, start: str = "") -> tuple[str, bytes]:
    """The quoted script, or one that reads it from its input when it is too long for a word.

    `head -c` of coreutils takes exactly the bytes it was asked for.
    """
    word = quote(start + script)
    if len(word.encode()) <= ARGUMENT_LIMIT:
        return word, b""
    body = script.encode()
    return quote(f'{start}eval "$(head -c {len(body)})"'), body
