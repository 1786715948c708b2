"""Two devices as one target: that of the cell, whose runner asks, and the one whose engine answers.

What is measured is the device that asks. The other one runs an ordinary trial of its own, whose runner waits for the first
one's, and leaves its events and its log in the same record.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from meltrepro.atomic import make_folder
from meltrepro.build.model import Artifact, Input
from meltrepro.errors import TargetError
from meltrepro.record import trial as record
from meltrepro.record.trial import Request, RequestPeer
from meltrepro.targets.base import (
    RUNNER,
    Addressed,
    Adjustable,
    DeviceFacts,
    DeviceState,
    Progress,
    Source,
    Target,
    TrialJob,
    TrialResult,
    TriedSetting,
    silent,
    writing,
)

_AGAIN_S = 0.5
_ENDS_S = 10.0
"""How long the engine's side may take to end once nobody asks any more."""


@dataclass(frozen=True)
class Meeting:
    """Where the two runners meet."""

    address: str | None
    """As the device that asks reaches the other one; that of its link where absent."""
    listen: str | None
    port: int

    def peers(self, far: Target) -> tuple[RequestPeer, RequestPeer]:
        """Whom to ask, and where to wait; raises `TargetError` where the address is not known."""
        address = self.address
        if address is None:
            if not isinstance(far, Addressed):
                raise TargetError("offload: this kind of target says of no address", hint="name it: offload.address")
            address = far.address()
        token = secrets.token_hex(16)
        asked = RequestPeer(address=_resolved(address), port=self.port, token=token)
        return asked, asked if self.listen is None else asked.model_copy(update={"address": _resolved(self.listen)})


class OffloadTarget:
    """A device that has another one answer; for campaigns it is a target like any other."""

    def __init__(self, near: Target, far: Target, asker: Artifact, meeting: Meeting) -> None:
        """`asker` has the programs of the device that asks; those of the other one are the cell's own."""
        self._near = near
        self._far = far
        self._asker = asker
        self._meeting = meeting

    def identify(self) -> DeviceFacts:
        return self._near.identify()

    def state(self) -> DeviceState:
        return self._near.state()

    def clock_ns(self) -> int:
        return self._near.clock_ns()

    def sources(self) -> Sequence[Source]:
        return self._near.sources()

    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> AbstractContextManager[None]:
        return self._near.sampling(self._asker, plan, folder)

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        self._far.deploy(bundle, model, progress, program=program, inputs=inputs)
        self._near.deploy(self._asker, self._unread, progress)

    def adjust(self) -> Mapping[str, str]:
        """Both devices; the settings of the one that answers are named `engine.NAME`."""
        return self._both(lambda target: target.adjust())

    def restore(self) -> Mapping[str, str]:
        return self._both(lambda target: target.restore())

    def try_out(self) -> Sequence[TriedSetting]:
        return self._near.try_out() if isinstance(self._near, Adjustable) else ()

    def stop_strays(self) -> int:
        return self._near.stop_strays() + self._far.stop_strays()

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run both sides to their end. Where the engine's ends first, and badly, its events are the trial's."""
        request = job.request
        assert isinstance(request, Request), "planning lets only conversations be offloaded"
        asked, waits = self._meeting.peers(self._far)
        folder = job.folder / record.SCRATCH
        with writing(job.folder):
            make_folder(folder)
        serving = request.model_copy(
            update={"serve": waits, "sync_mark": None, "turn_pause_ms": 0, "conversation_pause_ms": 0}
        )
        far = replace(job, request=serving, folder=folder)
        near = replace(
            job,
            bundle=self._asker,
            model=self._unread,
            request=request.model_copy(update={"ask": asked, "speculate": None, "lora": None, "page_cache": None}),
            inputs={},
        )
        with self._served(far) as engine:
            result = self._near.run_trial(near)
        return self._kept(job.folder, folder, result, engine)

    @property
    def _unread(self) -> Artifact:
        """A small file in the place of a model: who asks opens none."""
        path = self._asker.path / "bundle.json"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Artifact("no model", "model", digest, digest, path, path, path.stat().st_size)

    @contextmanager
    def _served(self, job: TrialJob) -> Iterator[_Engine]:
        """Have the engine's side run while the block runs; where it fails, what asks is stopped, which would wait for it."""
        engine, over = _Engine(), threading.Event()

        def run() -> TrialResult:
            well = False
            try:
                result = self._far.run_trial(job)
                well = result.exit_code == 0
                return result
            finally:
                engine.failed_first = not well and not over.is_set()
                while engine.failed_first and not over.wait(_AGAIN_S):
                    with suppress(TargetError):
                        self._near.stop_strays()

        with ThreadPoolExecutor(1, thread_name_prefix="engine") as pool:
            engine.running = pool.submit(run)
            try:
                yield engine
                over.set()
                with suppress(TimeoutError):
                    engine.running.exception(_ENDS_S)
            finally:
                over.set()
                while not engine.running.done():
                    with suppress(TargetError):
                        self._far.stop_strays()
                    with suppress(TimeoutError):
                        engine.running.exception(_AGAIN_S)

    def _kept(self, folder: Path, engine_folder: Path, near: TrialResult, engine: _Engine) -> TrialResult:
        """What the engine's side left in the record, and how the trial ended; raises what running the engine raised."""
        error = engine.running.exception()
        if engine.failed_first and error is not None:
            raise error
        events, log = (
            (record.EVENTS, record.STDERR) if engine.failed_first else (record.ENGINE_EVENTS, record.ENGINE_LOG)
        )
        with writing(folder):
            for name, kept in ((record.EVENTS, events), (record.STDERR, log)):
                if (engine_folder / name).is_file():
                    shutil.move(engine_folder / name, folder / kept)
        return engine.running.result() if engine.failed_first else near

    def _both(self, do: Callable[[Adjustable], Mapping[str, str]]) -> Mapping[str, str]:
        own = do(self._near) if isinstance(self._near, Adjustable) else {}
        others = do(self._far) if isinstance(self._far, Adjustable) else {}
        return {**own, **{f"engine.{name}": value for name, value in others.items()}}


class _Engine:
    """The engine's side of a trial."""

    running: Future[TrialResult]
    failed_first = False
    """Whether it ended badly while the other side still ran."""


def _resolved(address: str) -> str:
    """An IP address in numbers, which runners need; raises `TargetError`."""
    try:
        return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise TargetError(
            f"offload: this machine knows no address of {address!r}: {error.strerror or error}"
        ) from error
