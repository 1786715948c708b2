"""A node at work: dask's worker in this process, for as long as its head is there, and a new one whenever the head is back.

The head's end ends no trial: its thread goes on, and whoever asks for it later gets its record.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from meltrepro.errors import LabError
from meltrepro.hosts import wire
from meltrepro.hosts.node import LabNode
from meltrepro.hosts.serve import until_signal
from meltrepro.hosts.wire import Offer
from meltrepro.manifest.targets import TargetOptions
from meltrepro.store.cas import Store

_AGAIN_S = 1.0
_SCAN_S = 30.0
"""Between two looks what is plugged in, none of which is taken while this machine itself is measured."""
_NODE = "meltrepro_node"


Scan = Callable[[Callable[[str], object]], list[TargetOptions]]
"""Says which devices there are now; what it is given hears why others cannot be used."""


def attend(node: LabNode, scan: Scan, where: str, secret: str) -> None:
    """Offer devices to the head at an address until a signal ends it; raises `LabError` where the head refuses this node."""
    wire.configured()
    node.tidy()
    try:
        asyncio.run(_attend(node, scan, where, secret))
    finally:
        node.stop()


async def _attend(node: LabNode, scan: Scan, where: str, secret: str) -> None:
    over = asyncio.create_task(until_signal())
    told = False
    while not over.done():
        life = asyncio.create_task(_live(node, scan, where, secret))
        await asyncio.wait({over, life}, return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            node.stopping.set()
            life.cancel()
            with suppress(asyncio.CancelledError, OSError, LabError):
                await life
            return
        try:
            await life
            told = False
        except OSError as error:
            if wire.denied(error):
                raise wire.unreachable(where, error) from error
            if not told:
                node.tell(f"{wire.unreachable(where, error).message}; trying again")
            told = True
        await asyncio.wait({over}, timeout=_AGAIN_S)


async def _live(node: LabNode, scan: Scan, where: str, secret: str) -> None:
    """Be a worker of the head as long as it is there; raises `OSError` where it does not answer, `LabError` where it refuses."""
    from distributed import Worker
    from distributed.core import rpc

    security = wire.security(secret)
    offers = await asyncio.to_thread(lambda: node.offer(scan(node.tell)))
    name = f"{node.name}/{secrets.token_hex(4)}"
    async with rpc(where, connection_args=security.get_connection_args("worker"), timeout=10) as head:
        said = await head.lab_hello(
            who=node.name,
            versions=wire.versions(),
            wall_ns=time.time_ns(),
            host=_host(),
            worker=name,
            offers=wire.packed(offers),
        )
    if said["refused"] is not None:
        raise LabError(said["refused"])
    for why in said["doubled"].values():
        node.tell(f"not offered: {why}")
    taken = [offer for offer in offers if offer.id not in said["doubled"]]
    lanes = {offer.lane: 1.0 for offer in taken}
    node.settings.run.mkdir(parents=True, exist_ok=True)
    worker = Worker(
        where,
        name=name,
        nthreads=max(1, len(lanes)),
        resources=lanes,
        security=security,
        protocol="tls",
        memory_limit=0,
        local_directory=str(node.settings.run),
        death_timeout=20,
    )
    setattr(worker, _NODE, node)
    async with worker:
        node.tell(f"offered to {where}: {', '.join(offer.id for offer in taken) or 'no device'}")
        over = asyncio.create_task(worker.finished())
        while not over.done():
            await asyncio.wait({over}, timeout=_SCAN_S)
            if not over.done() and not node.measures_itself and await asyncio.to_thread(_changed, node, scan, offers):
                break


def _changed(node: LabNode, scan: Scan, offers: list[Offer]) -> bool:
    """Whether a device came or went since the node offered its own."""
    silent = LabNode(node.name, node.settings, node.engine, lambda _: None)
    return {offer.id for offer in silent.offer(scan(silent.tell))} != {offer.id for offer in offers}


def _host() -> str:
    """This machine, for the head to tell two of one name apart."""
    with suppress(OSError):
        return hashlib.sha256(Path("/etc/machine-id").read_bytes()).hexdigest()[:16]
    return ""


def see_to(order: bytes) -> bytes:
    """What dask carries: an order to the node that it comes to, and its answer."""
    from distributed import get_worker
    from distributed.utils import sync

    worker: Any = get_worker()
    node: LabNode = getattr(worker, _NODE)

    def fetch(digest: str) -> None:
        offset = 0
        with Store(node.settings.store).writer(expected=digest, subject="a file of the lab") as writer:
            while piece := sync(worker.loop, worker.scheduler.lab_get, digest=digest, offset=offset):
                writer.write(piece)
                offset += len(piece)

    return wire.packed(node.see_to(wire.unpacked(order), fetch))
