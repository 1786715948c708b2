"""The head of a lab: dask's scheduler, and what it does not know of devices: which node has them, who may use them, who waits.

It is asked for advice and passes files on. What it forgets costs no trial: nodes and clients tell it again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from meltrepro.atomic import write_bytes
from meltrepro.errors import LabError, MeltreproError
from meltrepro.hosts import wire
from meltrepro.hosts.wire import LabCampaign, LabState, Offer, OfferedDevice, Reservation
from meltrepro.settings import Settings
from meltrepro.store.cas import Store
from meltrepro.words import counted

if TYPE_CHECKING:
    from distributed import Scheduler

_TROUBLES = 2
"""A device that has failed so often in a row is left alone."""
_WANTED_S = 8.0
"""A device is kept for the campaign of the highest priority that has asked for it within such a time; clients ask more often."""
_FORGOTTEN_S = 60.0
"""Campaigns of which nothing was heard for such a time are over, or their clients are gone."""


@dataclass
class KnownNode:
    """A node that was here once."""

    host: str
    worker: str
    """As dask calls the process that is the node now."""
    there: bool = False


class Head:
    """What a head knows, and the questions that it answers."""

    def __init__(self, settings: Settings, tell: Callable[[str], object]) -> None:
        self._store = Store(settings.store)
        self._tell = tell
        self._path = settings.home / "lab" / "head.json"
        self._begun = time.time()
        self._nodes: dict[str, KnownNode] = {}
        self._devices: dict[str, OfferedDevice] = {}
        """By id; those that are away too."""
        self._campaigns: dict[str, LabCampaign] = {}
        self._wanted: dict[str, dict[str, float]] = {}
        """By device and campaign, when it was asked for."""
        self._troubles: dict[str, int] = {}
        self._quarantined: dict[str, str] = {}
        self._reserved: dict[str, Reservation] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path.read_text())
            self._quarantined = dict(kept["quarantined"])
            self._reserved = {device: Reservation(**each) for device, each in kept["reserved"].items()}

    def attach(self, scheduler: Scheduler) -> None:
        """TrialAnswer the questions of nodes and clients at a scheduler."""
        from distributed.diagnostics.plugin import SchedulerPlugin

        head, self._scheduler = self, scheduler

        class Watch(SchedulerPlugin):  # type: ignore[misc]  # dask has no types for it
            def add_worker(self, scheduler: Scheduler, worker: str) -> None:
                head._came(scheduler.workers[worker].name)

            def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
                head._went()

        scheduler.add_plugin(Watch(), name="meltrepro")
        for name in ("hello", "state", "turn", "left", "ended", "reserve", "release", "missing", "put", "get"):
            scheduler.handlers[f"lab_{name}"] = getattr(self, name)

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def hello(
        self,
        who: str,
        versions: Mapping[str, str],
        wall_ns: int,
        host: str = "",
        worker: str = "",
        offers: bytes = b"",
    ) -> dict[str, Any]:
        """Take in a node with what it offers, or a client, which offers nothing; returns why not, and which devices not."""
        refused = wire.refusal(who, versions, wall_ns)
        if refused is None and worker:
            known = self._nodes.get(who)
            if known is not None and known.there and known.host != host:
                refused = f"another host of this lab is called {who}: name this one otherwise (--name)"
        if refused is not None:
            self._tell(f"refused: {refused}")
            return {"refused": refused}
        if not worker:
            return {"refused": None}
        found: dict[str, Offer] = {offer.id: offer for offer in wire.unpacked(offers)}
        doubled = {
            device: f"{device} is offered by {other.offer.node} already"
            for device in found
            if (other := self._devices.get(device)) is not None and other.there and other.offer.node != who
        }
        taken = {device: offer for device, offer in found.items() if device not in doubled}
        await self._forget(who)
        for device, offer in taken.items():
            before = self._devices.get(device)
            if before is None or before.unplugged:  # somebody has seen to it
                self._troubles.pop(device, None)
                self._quarantined.pop(device, None)
            self._devices[device] = OfferedDevice(offer, there=False, since_wall_s=time.time())
        self._nodes[who] = KnownNode(host, worker)
        self._gone(who, unplugged=True, but=taken)
        self._keep()
        self._tell(f"node {who}: {counted(len(taken), 'device')}" + "".join(f"; {why}" for why in doubled.values()))
        return {"refused": None, "doubled": doubled}

    async def _forget(self, who: str) -> None:
        """End dask's connection with what a node was before: it may not have noticed yet that it is gone."""
        for address, state in list(self._scheduler.workers.items()):
            if str(state.name).rpartition("/")[0] == who:
                await self._scheduler.remove_worker(address, stimulus_id="lab-hello", close=False)

    def _came(self, worker: object) -> None:
        for name, known in self._nodes.items():
            if known.worker == worker:
                known.there = True
                for device, each in self._devices.items():
                    if each.offer.node == name and not each.unplugged:
                        self._devices[device] = replace(each, there=True, since_wall_s=time.time())

    def _went(self) -> None:
        workers = {state.name for state in self._scheduler.workers.values()}
        for name, known in self._nodes.items():
            if known.there and known.worker not in workers:
                known.there = False
                self._gone(name)
                self._tell(f"node {name} is away")

    def _gone(self, node: str, *, unplugged: bool = False, but: Collection[str] = ()) -> None:
        for device, each in self._devices.items():
            if each.offer.node == node and device not in but:
                since = time.time() if each.there else each.since_wall_s
                self._devices[device] = replace(
                    each, there=False, since_wall_s=since, unplugged=each.unplugged or unplugged
                )

    # -- clients --------------------------------------------------------------------------------------------------

    async def state(self) -> bytes:
        """Everything, as a `LabState`."""
        running, queues = self._tasks()
        devices = [
            replace(
                self._devices[device],
                running=running.get(device),
                queue=queues.get(device, 0),
                quarantined=self._quarantined.get(device),
                reserved=self._reservation(device),
            )
            for device in sorted(self._devices)
        ]
        now = time.time()
        live = [each for each in self._campaigns.values() if now - each.seen_wall_s < _FORGOTTEN_S]
        return wire.packed(LabState(devices, live))

    async def turn(
        self, device: str, campaign: str, who: str, priority: int, done: int, total: int
    ) -> dict[str, str | float | None]:
        """Whether a campaign may use a device now: else why it waits, since when the device is away, or why it never may."""
        now = time.time()
        heard = self._campaigns.get(campaign)
        if heard is None:
            heard = LabCampaign(campaign, who, priority, done, total, now, now, at_first=done)
        self._campaigns[campaign] = replace(heard, done=done, total=total, seen_wall_s=now)
        answer: dict[str, str | float | None] = {"wait": None, "away_s": None, "never": None}
        if (why := self._quarantined.get(device)) is not None:
            return answer | {"never": f"it is in quarantine: {why}; next: meltrepro lab release {device}"}
        held = self._reservation(device)
        if held is not None and held.who != who:
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(held.until_wall_s))
            return answer | {"wait": f"{device} is reserved for {held.who} until {until}"}
        wanted = self._wanted.setdefault(device, {})
        wanted[campaign] = now
        others = (self._campaigns[name] for name, when in wanted.items() if now - when < _WANTED_S)
        if (first := max(others, key=lambda each: each.priority)).priority > priority:
            return answer | {"wait": f"{device} is kept for {first.id}, whose priority is {first.priority}"}
        known = self._devices.get(device)
        if known is None:  # a head that has just been started knows nobody yet
            return answer | {"wait": f"no node offers {device} yet", "away_s": now - self._begun}
        if not known.there:
            return answer | {"wait": f"{device} is away with {known.offer.node}", "away_s": now - known.since_wall_s}
        return answer

    async def left(self, campaign: str) -> None:
        """Hear that a campaign wants nothing any more."""
        self._campaigns.pop(campaign, None)
        for wanted in self._wanted.values():
            wanted.pop(campaign, None)

    async def ended(self, device: str, trouble: str | None = None) -> None:
        """Hear how a trial ended for its device: well, or with trouble that was the device's or its host's."""
        if trouble is None:
            self._troubles.pop(device, None)
            return
        self._troubles[device] = self._troubles.get(device, 0) + 1
        if self._troubles[device] >= _TROUBLES:
            self._quarantined[device] = trouble
            self._keep()
            self._tell(f"{device} is in quarantine: {trouble}")

    async def reserve(self, device: str, who: str, seconds: float) -> str | None:
        """Keep a device for somebody; returns why that cannot be."""
        held = self._reservation(device)
        if held is not None and held.who != who:
            return f"{device} is reserved for {held.who} already"
        if device not in self._devices:
            return f"no node offers {device}"
        self._reserved[device] = Reservation(who, time.time() + seconds)
        self._keep()
        return None

    async def release(self, device: str) -> bool:
        """End a device's reservation and quarantine; returns whether there was any."""
        there = [self._reserved.pop(device, None), self._quarantined.pop(device, None)]
        self._troubles.pop(device, None)
        self._keep()
        return any(each is not None for each in there)

    def _reservation(self, device: str) -> Reservation | None:
        held = self._reserved.get(device)
        return held if held is not None and held.until_wall_s > time.time() else None

    def _tasks(self) -> tuple[dict[str, str], dict[str, int]]:
        """By device, the trial that runs, and how many wait."""
        running: dict[str, str] = {}
        queues: dict[str, int] = {}
        for worker in self._scheduler.workers.values():
            tasks = [task for task in worker.processing if str(task.key).startswith("lab|")]
            for task in sorted(tasks, key=lambda task: (task not in worker.executing, task.priority)):
                _, campaign, device, trial, *_ = str(task.key).split("|")
                if device in running:
                    queues[device] = queues.get(device, 0) + 1
                else:
                    running[device] = f"{campaign} {trial}"
        return running, queues

    def _keep(self) -> None:
        held = {device: asdict(each) for device, each in self._reserved.items() if self._reservation(device)}
        with suppress(MeltreproError):  # a full disk ends no campaign
            write_bytes(self._path, json.dumps({"quarantined": self._quarantined, "reserved": held}).encode())

    # -- files ----------------------------------------------------------------------------------------------------

    async def missing(self, digests: list[str]) -> list[str]:
        """Which of some files are not here."""
        return [digest for digest in digests if not self._store.has(digest)]

    async def put(self, digest: str, offset: int, data: bytes, last: bool) -> None:
        """Take a piece of a file, and with the last one the file; raises `DigestMismatch`, `StoreError`."""
        if self._store.has(digest):
            return
        path = self._store.partial(f"lab-{self._store.path(digest).name}")
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
        if last:
            await asyncio.to_thread(self._store.put_file, path, move=True, expected=digest)

    async def get(self, digest: str, offset: int) -> bytes:
        """The piece of a file that begins there; nothing behind its end."""
        with self._store.path(digest).open("rb") as file:
            file.seek(offset)
            return file.read(wire.CHUNK)


def serve(
    settings: Settings, secret: str, *, host: str, port: int, dashboard: int, tell: Callable[[str], object]
) -> None:
    """Be the head until a signal ends it; raises `LabError` where the port is taken."""
    wire.configured()
    asyncio.run(_serve(settings, secret, host, port, dashboard, tell))


async def _serve(
    settings: Settings, secret: str, host: str, port: int, dashboard: int, tell: Callable[[str], object]
) -> None:
    from distributed import Scheduler

    try:
        scheduler = await Scheduler(
            host=host,
            port=port,
            protocol="tls",
            security=wire.security(secret),
            dashboard=dashboard > 0,
            dashboard_address=f"127.0.0.1:{dashboard}",
        )
    except OSError as error:
        raise LabError(
            f"cannot listen at {host}:{port}: {error.strerror or error}", hint="choose another --port"
        ) from error
    Head(settings, tell).attach(scheduler)
    page = f"; dashboard http://127.0.0.1:{dashboard}/status" if dashboard else ""
    tell(f"head at {scheduler.address}; token {wire.token_path(settings)}{page}")
    await until_signal()
    await scheduler.close()


async def until_signal() -> None:
    """Return at Ctrl-C, SIGTERM or SIGHUP."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    await over.wait()
