"""A campaign's way to a lab: trials are ordered and their records fetched, files pushed once, whatever becomes of head and nodes.

The campaign's folder is here, and its trials are counted here, by the code of any campaign; only what carries out an attempt is
another (`perform`).
"""

from __future__ import annotations

import getpass
import hashlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltrepro.atomic import write_bytes
from meltrepro.build.model import Artifact, Input
from meltrepro.campaign.conduct import Means
from meltrepro.campaign.runner import Halted
from meltrepro.campaign.trial import Attempt, CellRun, Watcher
from meltrepro.errors import LabError, MeltreproError, RecordError, TargetError
from meltrepro.hosts import wire
from meltrepro.hosts.attend import see_to
from meltrepro.hosts.node import files_of
from meltrepro.hosts.wire import LabState, Offer, TrialAnswer, TrialOrder
from meltrepro.record import trial as record
from meltrepro.record.ids import CellId
from meltrepro.record.layout import Trial
from meltrepro.record.outcomes import FailureKind
from meltrepro.record.trial import parse_outcome
from meltrepro.record.writer import trial_folder
from meltrepro.steps import Step
from meltrepro.targets.base import RUNNER, DeviceFacts, DeviceState, Progress, Source, TrialJob, TrialResult, silent

if TYPE_CHECKING:
    from distributed import Client

_LOOK_S = 0.5
"""Between two looks whether a campaign is to end, and between two tries to reach a head that is gone."""
_ASK_S = 5.0
"""Between two questions whether a device is still there."""
_PLAIN = re.compile(r"[a-z][a-z0-9_.-]{0,60}")
_TROUBLE = (FailureKind.target, FailureKind.not_started)
"""Failures of trials that are a device's or its host's fault."""


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class FarTarget:
    """A device of a lab, for whoever plans: what its node says of it. Whatever else is asked of a device its node alone can do."""

    offer: Offer
    entry: Mapping[str, Any]
    push: Callable[[Mapping[str, Path]], None] = field(default=_nothing, compare=False)

    def identify(self) -> DeviceFacts:
        return replace(self.offer.facts, here=False)

    def sources(self) -> Sequence[Source]:
        return self.offer.sources

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        """Bring files to the head, where nodes get them."""
        self.push({bundle.digest: bundle.file, model.digest: model.file, **{each.digest: each.path for each in inputs}})

    def stop_strays(self) -> int:
        """Nothing: what runs goes on, and its record is there when it is asked for."""
        return 0

    def state(self) -> DeviceState:
        raise self._asked

    def clock_ns(self) -> int:
        raise self._asked

    def run_trial(self, job: TrialJob) -> TrialResult:
        raise self._asked

    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> AbstractContextManager[None]:
        raise self._asked

    @property
    def _asked(self) -> TargetError:
        return TargetError(f"{self.offer.id} is asked by its node {self.offer.node} alone")


class LabLink:
    """The connection of one campaign with a lab."""

    def __init__(self, where: str, secret: str, *, priority: int = 0, patience_s: float = 0.0) -> None:
        """Devices that are away are waited for, each at most `patience_s`.

        Raises `LabError` where the head does not answer or refuses.
        """
        wire.configured()
        self._where, self._priority, self._patience_s = where, priority, patience_s
        self._security = wire.security(secret)
        self.who = f"{getpass.getuser()}@{socket.gethostname()}"
        self._guard, self._pushing = threading.Lock(), threading.Lock()
        self._pushed: set[str] = set()
        self._missing: dict[str, str] = {}
        self._campaigns: set[str] = set()
        self._done = self._total = 0
        self._client: Client | None = None
        try:
            self._connected()
        except OSError as error:
            raise wire.unreachable(where, error) from error

    def close(self) -> None:
        if self._client is not None:
            with suppress(*_gone()):
                for campaign in self._campaigns:
                    self.ask("left", campaign=campaign)
            self._client.close(timeout=2)

    def ask(self, question: str, **given: Any) -> Any:
        """Put a question to the head; raises `OSError` where it is gone."""
        client = self._connected()

        async def put() -> Any:
            assert client.scheduler is not None
            return await getattr(client.scheduler, f"lab_{question}")(**given)

        return client.sync(put, callback_timeout=60)

    def state(self) -> LabState:
        """The lab as it is now."""
        found: LabState = wire.unpacked(self.ask("state"))
        return found

    def target(self, offer: Offer, entry: Mapping[str, Any]) -> FarTarget:
        return FarTarget(offer, entry, self.push)

    def means(self) -> Means:
        """How a campaign's trials are carried out here."""
        return Means(self.perform, lambda *_, **__: nullcontext(), _lanes, lambda: self._missing)

    def watch(self, step: Step) -> None:
        """Hear how far the campaign is, which the head is told."""
        if step.unit == "trials" and step.total is not None:
            self._done, self._total = int(step.done or 0), int(step.total)

    def push(self, files: Mapping[str, Path]) -> None:
        """Bring files to the head that it does not have; raises `LabError` where it is gone for long."""
        new = {digest: path for digest, path in files.items() if digest not in self._pushed}
        if not new:
            return
        with self._pushing:
            self._patiently(lambda: self._push(new))

    def perform(self, run: CellRun, trial: Trial, attempt: int, folder: Path, watcher: Watcher) -> Attempt:
        """See to it that a trial has a record in `folder`; gives up by `Halted` where its device is gone for good."""
        target = run.target
        assert isinstance(target, FarTarget)
        self.push(files_of(run))
        there = replace(run, target=FarTarget(target.offer, target.entry), about=_nothing)
        campaign = folder.parents[6].name
        self._campaigns.add(campaign)
        order = TrialOrder(campaign, campaign, trial, attempt, there, target.entry, target.offer.id)
        while True:
            answer = self._ordered(order, target.offer, watcher)
            if answer.busy:
                self._wait(f"{target.offer.id}: {answer.error}", watcher)
                continue
            if answer.error is None:
                ended = _kept(answer, folder)
                failure = ended.outcome.failure
                bad = failure is not None and failure.kind in _TROUBLE
                self._tell_ended(target.offer, failure.line if bad and failure else None)
                return ended
            self._tell_ended(target.offer, answer.error)
            self._wait(answer.error, watcher)

    def _ordered(self, order: TrialOrder, offer: Offer, watcher: Watcher) -> TrialAnswer:
        """What a node answers to an order, however often the head, the node or the way there breaks."""
        content = wire.packed(order)
        while True:
            try:
                if self._may(order, offer, watcher):
                    return self._answer(order, offer, content, watcher)
            except _gone():
                self._wait(f"the head {self._where} does not answer", watcher)
            except MeltreproError:
                raise
            except Exception as error:  # of dask or of the node, whose device is left alone if it happens again
                return TrialAnswer(offer.node, error=" ".join(f"{type(error).__name__}: {error}".split()))

    def _may(self, order: TrialOrder, offer: Offer, watcher: Watcher) -> bool:
        """Whether a device may be used now; raises `Halted` where that is given up."""
        said = self.ask(
            "turn",
            device=offer.id,
            campaign=order.campaign,
            who=self.who,
            priority=self._priority,
            done=self._done,
            total=self._total,
        )
        why, away_s = said["never"], said["away_s"]
        if why is None and away_s is not None and away_s > self._patience_s:
            why = f"{said['wait']} for {away_s:.0f} s"
        if why is not None:
            name = CellId.parse(order.trial.cell_id).target
            self._missing[name] = f"target {name}: {why}"
            raise Halted
        if said["wait"] is not None:
            self._wait(said["wait"], watcher)
        return said["wait"] is None

    def _answer(self, order: TrialOrder, offer: Offer, content: bytes, watcher: Watcher) -> TrialAnswer:
        client = self._connected()
        key = "|".join(["lab", order.campaign, offer.id, str(order.trial), str(order.attempt), secrets.token_hex(4)])
        future = client.submit(
            see_to, content, key=key, resources={offer.lane: 1}, priority=self._priority, pure=False, retries=0
        )
        ended = threading.Event()
        future.add_done_callback(lambda _: ended.set())
        asked = time.monotonic()
        try:
            while not ended.wait(_LOOK_S):
                watcher.rest(0)
                if time.monotonic() - asked > _ASK_S:
                    self._may(order, offer, watcher)
                    asked = time.monotonic()
            answer: TrialAnswer = wire.unpacked(future.result(timeout=60))
            return answer
        finally:
            future.release()

    def _wait(self, why: str, watcher: Watcher) -> None:
        watcher.waiting([why], True)
        watcher.rest(_LOOK_S)

    def _tell_ended(self, offer: Offer, trouble: str | None) -> None:
        with suppress(*_gone()):
            self.ask("ended", device=offer.id, trouble=trouble)

    def _push(self, files: Mapping[str, Path]) -> None:
        for digest in self.ask("missing", digests=list(files)):
            size, offset = files[digest].stat().st_size, 0
            with files[digest].open("rb") as file:
                while True:
                    piece = file.read(wire.CHUNK)
                    last = offset + len(piece) >= size
                    self.ask("put", digest=digest, offset=offset, data=piece, last=last)
                    offset += len(piece)
                    if last:
                        break
        self._pushed |= files.keys()

    def _patiently(self, action: Callable[[], None]) -> None:
        """Do something with the head, which may come back within a time."""
        until = time.monotonic() + max(self._patience_s, 30.0)
        while True:
            try:
                return action()
            except _gone() as error:
                if time.monotonic() > until:
                    raise wire.unreachable(self._where, error) from error
                time.sleep(_LOOK_S)

    def _connected(self) -> Client:
        """The client, made anew where the head has gone since; raises `OSError` where it is away, `LabError` where it refuses."""
        from distributed import Client

        with self._guard:
            if self._client is not None and self._client.status == "running":
                return self._client
            if self._client is not None:
                with suppress(Exception):
                    self._client.close(timeout=1)
            self._client = client = Client(
                self._where, security=self._security, timeout=5, set_as_default=False, direct_to_workers=False
            )

        async def hello() -> Any:
            assert client.scheduler is not None
            return await client.scheduler.lab_hello(who=self.who, versions=wire.versions(), wall_ns=time.time_ns())

        said = client.sync(hello, callback_timeout=30)
        if said["refused"] is not None:
            raise LabError(said["refused"])
        return client


def _gone() -> tuple[type[BaseException], ...]:
    """What dask raises where a head went away, or has forgotten what it was to do."""
    from asyncio import CancelledError

    from distributed import KilledWorker
    from distributed.client import ClosedClientError, FutureCancelledError

    return (OSError, CancelledError, FutureCancelledError, ClosedClientError, KilledWorker)


def _lanes(trials: Sequence[Trial], runs: Mapping[str, CellRun]) -> list[list[Trial]]:
    """A lane for each device: which of them share CPUs is their nodes' matter."""
    lanes: dict[str, list[Trial]] = {}
    for trial in trials:
        lanes.setdefault(runs[trial.cell_id].facts.id, []).append(trial)
    return list(lanes.values())


def _kept(answer: TrialAnswer, folder: Path) -> Attempt:
    """A record that a node sent, in its place; raises `RecordError` where it is not whole, `StoreError` where there is no room."""
    try:
        outcome = parse_outcome(answer.files[record.OUTCOME])
        files = {name: content for name, content in answer.files.items() if name != record.OUTCOME}
        for name, content in files.items():
            if not _PLAIN.fullmatch(name):
                raise ValueError(f"{name[:60]!r} is no file of a record")
            if outcome.files.get(name, (found := hashlib.sha256(content).hexdigest())) != found:
                raise ValueError(f"{name} is not what was sealed")
        if lacking := outcome.files.keys() - files.keys():
            raise ValueError(f"{', '.join(sorted(lacking))} is missing")
    except (KeyError, ValueError) as error:
        raise RecordError(f"node {answer.node} sent a damaged record of {folder}: {error}") from error
    with trial_folder(folder) as (there, end):
        for name, content in files.items():
            write_bytes(there / name, content)
        end(outcome)
    return Attempt(outcome, answer.metrics)
