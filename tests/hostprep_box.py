"""A machine for host preparation in a folder: files to have and values to write, all below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferfleet.events import Event
from inferfleet.hostprep.act import Acted, act, generations, interrupted, look, undo
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.judge import Prepared, judge
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Kind, Wanted
from inferfleet.hostprep.steps import PutFile, Run, Write
from inferfleet.hosts.local import LocalHost


class Values:
    """Settings whose live value is a file of `live`, kept by a line of one file in `etc`."""

    def __init__(self, root: Path) -> None:
        self.ours = str(root / "etc" / "ours.conf")
        self.live = f"{root}/live"
        self.log = root / "log"
        self.cuts = False

    def look(self, ground: Ground) -> Look:
        return Look((self.ours, *(f"{self.live}/{w.key}" for w in ground.of("values"))))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        lines = "".join(f"{w.key}={w.value}\n" for w in ground.of("values"))
        findings, changes = [], []
        for wanted in ground.of("values"):
            path = f"{self.live}/{wanted.key}"
            live = facts.value(path)
            kept = f"{wanted.key}={wanted.value}\n" in (facts.text(self.ours) or "")
            verdict = "ok" if live == wanted.value and kept else "differs"
            findings.append(Finding(wanted, str(live), "-", verdict))  # type: ignore[arg-type]
            if live != wanted.value:
                do = (
                    Write(path, wanted.value),
                    Run(("sh", "-c", f"echo {wanted.key} >>{self.log}")),
                )
                back = (Write(path, live),) if live is not None else ()
                text = f"{live} -> {wanted.value}"
                changes.append(Change((wanted.name,), text, do, back, cuts=self.cuts))
        file = PutFile(self.ours, lines or None, after=("sh", "-c", f"echo reload >>{self.log}"))
        return Judgement(tuple(findings), (file,), tuple(changes))


@dataclass
class Box:
    """root: the folder. wanted: name -> value."""

    root: Path
    host: LocalHost = field(default_factory=lambda: LocalHost("box"))

    def __post_init__(self) -> None:
        self.values = Values(self.root)
        self.kinds: Mapping[str, Kind] = {"values": self.values}
        (self.root / "live").mkdir()
        (self.root / "etc").mkdir()
        for name in ("one", "two"):
            self.set(name, "old")

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def ours(self) -> Path:
        return self.root / "etc" / "ours.conf"

    def set(self, name: str, value: str) -> None:
        (self.root / "live" / name).write_text(f"{value}\n")

    def live(self) -> dict[str, str]:
        found = (self.root / "live").iterdir()
        return {path.name: path.read_text().strip() for path in sorted(found)}

    def ground(self, **wanted: str) -> Ground:
        settings = tuple(Wanted("values", name, value) for name, value in wanted.items())
        return Ground(settings, state=str(self.state), units=str(self.root / "units"))

    def see(self, **wanted: str) -> tuple[Facts, Prepared]:
        ground = self.ground(**wanted)
        facts = look(self.host, ground, self.kinds, sudo=False)
        return facts, judge(ground, facts, self.kinds)

    def apply(
        self,
        host: LocalHost | None = None,
        again: Callable[[], LocalHost] | None = None,
        **wanted: str,
    ) -> Acted:
        ground = self.ground(**wanted)
        facts, prepared = self.see(**wanted)
        broken = interrupted(ground, facts)
        if broken is not None:
            undo(self.host, ground, broken, sudo=False)
            facts, prepared = self.see(**wanted)
        self.events: list[Event] = []
        number = max(generations(ground, facts), default=0) + 1
        return act(
            host or self.host, again, ground, prepared, self.kinds,
            number=number, sudo=False, listener=self.events.append,
        )  # fmt: skip

    def rollback(self) -> Acted:
        ground = self.ground()
        facts, _ = self.see()
        return undo(self.host, ground, generations(ground, facts)[-1], sudo=False)

    def whole(self) -> str:
        """old or new; anything between fails."""
        live = self.live()
        if live == {"one": "old", "two": "old"} and not self.ours.exists():
            return "old"
        assert live == {"one": "new", "two": "new"}, live
        assert self.ours.read_text() == "one=new\ntwo=new\n"
        return "new"
