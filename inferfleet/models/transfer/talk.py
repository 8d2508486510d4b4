"""A conversation with store.sh: lines and bytes out, answers in, refusals as errors."""

from __future__ import annotations

from inferfleet.errors import LOCKED, FleetError
from inferfleet.hosts.host import Conversation, Host
from inferfleet.models.need import ModelNeed


class LockedError(FleetError):
    """Another conversation is at work on the model; owner: its process and machine, as
    Talk.owner has it."""

    def __init__(self, what: str, hint: str, owner: str) -> None:
        super().__init__(what, hint, code=LOCKED)
        self.owner = owner


class Talk:
    """Speaks the protocol that store.sh begins with; need: the model that is spoken of.

    Every method raises FleetError when the machine refuses, with the machine's own words.
    """

    def __init__(self, host: Host, conversation: Conversation, need: ModelNeed) -> None:
        self._conversation = conversation
        self.machine = host.name
        self.need = need
        self.tool = "none"
        self.owner = ""

    def start(self) -> None:
        """Take the model's lock, as the owner from then on; LockedError names the run that
        holds it."""
        self._send(self.need.models_dir, self.need.key, self.need.directory)
        _, kind, rest = self._answer()
        if kind == "no":
            pid, _, machine = rest.partition(" ")
            raise LockedError(
                f"{self.machine}: another run (process {pid} on {machine}) is at work on the "
                f"model {self.need.key}",
                f"wait for it, or end process {pid} on {machine} if it hangs",
                rest,
            )
        self.tool, _, self.owner = rest.partition(" ")

    def _ask(self, *lines: str) -> tuple[list[str], str, str]:
        self._send(*lines)
        return self._answer()

    def _answer(self) -> tuple[list[str], str, str]:
        lines: list[str] = []
        while True:
            line = self._line()
            kind, _, rest = line.partition(" ")
            if kind in ("ok", "no"):
                return lines, kind, rest
            if kind == "fail":
                raise self._refused(rest.partition(" ")[2])
            lines.append(line)

    def _send(self, *lines: str) -> None:
        for line in lines:
            if "\n" in line:
                raise FleetError(f"{self.machine}: {line!r} cannot be written in one line")
        self._conversation.send("".join(f"{line}\n" for line in lines).encode())

    def _send_data(self, lines: list[str], data: bytes) -> str:
        try:
            self._send(*lines, str(len(data)))
            self._conversation.send(data)
        except (FleetError, OSError):
            # The machine gives up on a failed write and says why before it closes.
            _, _, rest = self._answer()
            return rest
        return self._answer()[2]

    def _line(self) -> str:
        line = self._conversation.readline()
        if line is None:
            result = self._conversation.finish(10)
            words = result.err.strip().rpartition("\n")[2] or f"exit status {result.exit}"
            raise FleetError(
                f"{self.machine}: fetching the model {self.need.key} was cut off: {words}",
                "run the same command again; it continues where this one stopped",
            )
        return line

    def _refused(self, words: str) -> FleetError:
        if "No space left" in words:
            return self._full()
        hint = ""
        if "Permission denied" in words:
            hint = (
                f"give the user write access to {self.need.models_dir}, choose another "
                "models directory, or set sudo: true in the machine file"
            )
        return FleetError(f"{self.machine}: model {self.need.key}: {words}", hint)

    def _full(self) -> FleetError:
        return FleetError(
            f"{self.machine}: the disk of {self.need.models_dir} is full; "
            f"the model {self.need.key} is not complete",
            "make room and run the same command again; it continues where this one stopped",
        )
