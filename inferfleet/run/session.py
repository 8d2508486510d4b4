"""One machine in one run: observe it, plan for it, apply to it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from inferfleet.errors import LOCKED, FleetError
from inferfleet.events import Event, Listener
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import observe_script as models_script
from inferfleet.models.progress import Progress
from inferfleet.observe.observed import Observed, parse_observed
from inferfleet.plan.plan import Goal, Plan, down_plan, make_plan
from inferfleet.release.provenance import Provenance
from inferfleet.release.release import Release, Unit
from inferfleet.remote import program
from inferfleet.secrets import Secret

if TYPE_CHECKING:
    from inferfleet.apply.apply import Outcome
    from inferfleet.plan.footing import Footing
    from inferfleet.run.sharing import Sharing

OBSERVE_SECONDS = 120.0


@dataclass(frozen=True)
class Planned:
    """A plan with all it was made from, and the session it belongs to.

    contents: path -> what it holds now, of files that change and are not secret.
    """

    talk: Session
    release: Release
    observed: Observed
    plan: Plan
    contents: Mapping[str, bytes] = field(default_factory=dict)
    upload: bool = True


class Session:
    """Talks to one machine about one release. Raises FleetError for what the user must know."""

    def __init__(
        self,
        host: Host,
        release: Release,
        sudo: bool,
        secrets: Mapping[str, Secret],
        modelfiles: Mapping[str, Mapping[str, Any]],
        unknown: tuple[str, ...] = (),
        footings: Mapping[str, Footing] | None = None,
        budget: Mapping[str, Any] | None = None,
        origin: Callable[[bool], Provenance] | None = None,
    ) -> None:
        """unknown: secrets that could not be had; the release is made without them. footings:
        what services need of the ground under them; budget: of the machine's memory. origin:
        whose run it is and from which checkouts; told to look for changes there when applying."""
        self.host, self.release, self.sudo, self.secrets = host, release, sudo, secrets
        self.modelfiles, self.unknown, self.footings = modelfiles, unknown, footings or {}
        self.budget, self.origin = budget or {}, origin

    def observe(
        self, release: Release | None = None, gpus: bool = False, space: str = ""
    ) -> Observed:
        """One round trip: what is there now; with gpus also what nvidia-smi says. space: a
        line of sh that prints how full disks are."""
        wanted = release or self.release
        script = observe_script(wanted, gpus, space)
        result = self.host.run(script, sudo=self.sudo, timeout=OBSERVE_SECONDS)
        if result.exit and "end" not in result.out.rpartition("\n")[0].rpartition("\n")[2]:
            raise FleetError(
                f"{self.host.name}: looking at the machine failed: {result.err.strip()[:300]}"
            )
        return parse_observed(result.out, wanted.root)

    def plan(self, goal: Goal) -> Planned:
        """Observe and compare; a second question only when something will change."""
        observed = self.observe()
        return self._detailed(self.release, observed, make_plan(self.release, observed, goal), goal)

    def plan_rollback(self, to: int | None) -> Planned:
        """The way to a kept generation; to None means the one before the current."""
        from inferfleet.apply.generations import read_generation

        observed = self.observe()
        kept = [n for n in observed.generations if n != observed.current]
        if to is None:
            to = max((n for n in kept if n < observed.current), default=None)
        if to is None or to not in kept:
            raise FleetError(
                f"{self.host.name} keeps no "
                + (f"generation {to}" if to else "generation before the current one"),
                hint=f"kept: {', '.join(map(str, observed.generations)) or 'none'}; "
                "see `invoke history`",
            )
        release = read_generation(self.host, self.release, to, self.sudo)
        observed = self.observe(release)
        goal = Goal()
        plan = make_plan(release, observed, goal, forced=True)
        planned = self._detailed(release, observed, plan, goal, forced=True)
        return replace(planned, upload=False, plan=replace(planned.plan, to=to))

    def plan_restart(self, services: frozenset[str] | None) -> Planned:
        """Restart what is in force, whatever the files say by now.

        Raises FleetError when nothing is in force, or nothing of these services.
        """
        from inferfleet.apply.generations import not_as_applied, read_generation

        observed = self.observe()
        if not observed.current:
            what = f"nothing is in force on {self.host.name}"
            raise FleetError(what, "`invoke up` starts services")
        kept = read_generation(self.host, self.release, observed.current, self.sudo)
        release = replace(kept, failures=self.release.failures, notices=self.release.notices)
        if services is not None and not services & release.units.keys():
            what = f"{', '.join(sorted(services))} is not in force on {self.host.name}"
            raise FleetError(what, "`invoke up` starts it")
        waiting = make_plan(self.release, observed, Goal(start=False))
        if release.links != self.release.links:
            observed = self.observe(release)
        goal = Goal(True, services, restart=True)
        plan = make_plan(release, observed, goal)
        if plan.to != plan.source:
            raise not_as_applied(plan)
        # What is in force may ask for other memory than the files; and what runs has it already.
        same = release.units == self.release.units and not waiting.changed_files
        stands = {s for s, state in observed.units.items() if state.state == "running"}
        judged = same and not stands.issuperset(plan.targets("replace") + plan.targets("start"))
        planned = self._detailed(release, observed, plan, goal, judged=judged)
        if self.unknown or not waiting.changed_files:
            return planned
        note = "restarted as it is in force: changes of the files wait for `invoke up`"
        return replace(planned, plan=replace(planned.plan, notes=(*planned.plan.notes, note)))

    def plan_down(self, services: frozenset[str] | None) -> Planned:
        """Stop and remove what runs; nothing is written but the lock and the history."""
        observed = self.observe()
        plan = down_plan(self.release, observed, services)
        return Planned(self, self.release, observed, plan, upload=False)

    def _detailed(
        self,
        release: Release,
        observed: Observed,
        plan: Plan,
        goal: Goal,
        forced: bool = False,
        judged: bool = True,
    ) -> Planned:
        """judged: whether what starts has to fit beside what runs."""
        locked = any(problem.code == LOCKED for problem in plan.problems)
        if plan.empty or locked:
            return Planned(self, release, observed, plan)
        from inferfleet.models.sources.sources import token_notes
        from inferfleet.plan.details import (
            acting_services,
            details_script,
            parse_details,
            with_details,
        )
        from inferfleet.plan.diff import reasons
        from inferfleet.plan.footing import footing_problems

        script = details_script(release, observed, plan, self.footings)
        answer = self.host.run(script, sudo=self.sudo, timeout=60).out if script else ""
        details = parse_details(answer)
        size = upload_size(release) if plan.to != plan.source else 0
        why = reasons(release, plan, details.contents)
        observed = replace(observed, listeners=observed.listeners | details.listeners)
        again = make_plan(release, observed, goal, why, forced)
        whole = with_details(again, details, observed, size)
        acting = acting_services(release, whole)
        problems, notes = footing_problems(release, self.footings, acting, details.missing)
        token = token_notes(plan.fetch, self.secrets)
        told = (*self._elsewhere(observed), *whole.notes, *notes, *token)
        whole = replace(whole, problems=(*whole.problems, *problems), notes=told)
        if acting and self.budget and judged and not forced:
            from inferfleet.capacity.admission.admit import admit

            whole = admit(self, observed, whole, goal)
        return Planned(self, release, observed, whole, details.contents)

    def _elsewhere(self, observed: Observed) -> tuple[str, ...]:
        """Who applied last, where that was from another checkout than this one."""
        last = observed.manifest.by if observed.manifest else None
        if last is None or self.origin is None or not last.elsewhere(self.origin(False)):
            return ()
        return (f"last applied by {last.who} from {last}",)

    def apply(
        self, planned: Planned, what: str, listener: Listener, sharing: Sharing | None = None
    ) -> Outcome:
        """Fetch what is missing, then the transaction; raises the plan's first problem if any.

        sharing: with the other machines of the run, whose models can be copied.
        """
        from inferfleet.apply.apply import Outcome, apply

        for problem in planned.plan.problems:
            raise problem
        if planned.plan.empty:
            return Outcome(self.host.name)
        self.fetch(planned.plan, listener, sharing)
        by = self.origin(True) if self.origin else None
        return apply(
            self.host,
            replace(planned.release, by=by),
            planned.observed,
            planned.plan,
            what=what,
            sudo=self.sudo,
            keys=self.secrets,
            listener=listener,
            upload=planned.upload,
            before_ready=lambda units: self._served_models(planned.release, units, listener),
        )

    def fetch(self, plan: Plan, listener: Listener, sharing: Sharing | None = None) -> None:
        """Bring the models that are missing; nothing else changes."""
        if not plan.fetch:
            return
        from inferfleet.run.sharing import Sharing

        sharing = sharing or Sharing({}, {})
        for need in plan.fetch:
            sharing.bring(self, need, FetchProgress(self.host.name, listener, need))

    def ensure_served(self, need: ModelNeed, progress: Progress, update: bool = False) -> bool:
        """Make the running Ollama of a service have its model; True when something changed."""
        from inferfleet.health.ready import reachable
        from inferfleet.models.ollama import ensure_ollama

        unit = self.release.units[need.service]
        assert unit.address is not None
        return ensure_ollama(
            self.host, need, unit.address[1], self.modelfiles.get(need.service),
            unit.model, progress, update=update, address=reachable(unit.address[0]),
        )  # fmt: skip

    def _served_models(self, release: Release, units: list[Unit], listener: Listener) -> str:
        """Models that only a running engine can fetch; "" or what went wrong.

        A generation knows nothing of its models: those of services that are others by now are
        left as they are.
        """
        started = {u.service for u in units if self.release.units.get(u.service) == u}
        for need in self.release.models:
            if need.service in started and need.source.scheme == "ollama":
                try:
                    self.ensure_served(need, FetchProgress(self.host.name, listener, need))
                except FleetError as error:
                    return error.line
        return ""


class FetchProgress:
    """Model progress as events; a model is called after the service that needs it."""

    def __init__(self, machine: str, listener: Listener, need: ModelNeed) -> None:
        self._machine, self._listener = machine, listener
        self._what = f"the model of {need.service}"

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        """done and total count bytes."""
        self._listener(Event(self._machine, "fetch", self._what, done=done, total=total))

    def note(self, text: str) -> None:
        """A line for the reader."""
        self._listener(Event(self._machine, "note", text))


def upload_size(release: Release) -> int:
    """Bytes that a release takes on the machine, roughly: files fill whole blocks of 4 KiB."""
    return sum(len(file.content) + 4096 for file in release.files.values())


def observe_script(release: Release, gpus: bool = False, space: str = "") -> str:
    """Everything asked in one round trip, also about links that only the wanted release has."""
    script = program(
        "observe",
        root=release.root,
        links="\n".join(sorted(release.links)),
    )
    models = models_script(release.models)
    # The last record is `end`: it proves that nothing before it was cut off.
    body, _, end = script.rstrip("\n").rpartition("\n")
    more = (f"{space}\n" if space else "") + (program("gpus") if gpus else "")
    return f"{body}\n( {models or ':'}\n)\n{more}{end}\n"


def control(release_root: str, *words: str) -> str:
    """A call of the control script of the generation in force."""
    return shlex.join(["sh", f"{release_root}/current/control", *words])
