"""The dialogue with sudo: a password is asked for only when needed, and sent only on stdin."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from inferfleet.errors import FleetError
from inferfleet.hosts import shell
from inferfleet.hosts.program import Session

# Slow directory services take seconds to check a login; after this sudo is taken as stuck, for
# example in a prompt for a second factor.
SUDO_SECONDS = 60.0


class Sudo:
    """How one host becomes root; remembers that a password was needed.

    password: called at most once for this host; share a caching callable between hosts.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[str], Session],
        password: Callable[[], str] | None = None,
    ) -> None:
        self._name = name
        self._start = start
        self._ask = password
        self._secret: str | None = None

    def open(self, script: str) -> Session:
        """Start script as root; its standard input is open and untouched.

        Raises FleetError when sudo refuses or wants a password that is not there.
        """
        if self._secret is None:
            session, refusal = self._attempt(script, None)
            if session is not None:
                return session
            if self._ask is None or "not found" in refusal:
                raise FleetError(
                    f"sudo on {self._name} failed: {refusal}",
                    "allow sudo without a password there, or let inferbase ask for the password",
                )
            self._secret = self._ask()
        session, refusal = self._attempt(script, self._secret)
        if session is None:
            raise FleetError(
                f"sudo on {self._name} failed: {refusal}",
                "check the password, and that the user may use sudo there (sudo -l)",
            )
        return session

    def _attempt(self, script: str, secret: str | None) -> tuple[Session | None, str]:
        """A session that has become root, or None and what sudo said."""
        mark = f"inferbase-{secrets.token_hex(8)}"
        started, prompt = f"{mark}\n".encode(), f"{mark}:".encode()
        command = shell.as_root(script, mark=mark, password=secret is not None)
        session = self._start(command.line)
        err = session.err
        if secret is not None:
            session.send(secret.encode() + b"\n")
        with session.changed:
            decided = session.changed.wait_for(
                lambda: err.ended or started in err.data or err.data.count(prompt) > 1,
                SUDO_SECONDS,
            )
            said = bytes(err.data)
            if started in said:
                del err.data[: said.index(started) + len(started)]
        if started in said:
            if secret is not None:
                session.send(started)
            session.send(command.prefix)
            return session, ""
        session.program.end()
        if not decided:
            return None, f"no answer within {SUDO_SECONDS:g} s"
        if said.count(prompt) > 1:
            return None, "the password was refused"
        words = said.replace(prompt, b"").decode("utf-8", "replace").split("\n")
        return None, next((word.strip() for word in reversed(words) if word.strip()), "no reason")
