"""Several devices at once: a lane for each, in which trials run one after the other.

This machine and the virtual devices that it runs share one lane: they would take each other's CPUs. So do devices of which
one has the other's engine answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from meltrepro.campaign.trial import CellRun
from meltrepro.record.layout import Trial
from meltrepro.targets.base import DeviceFacts

_HERE = "this machine"
_AGAIN_S = 1.0
L = TypeVar("L")
R = TypeVar("R")


def lanes_of(trials: Sequence[Trial], runs: Mapping[str, CellRun]) -> list[list[Trial]]:
    """The trials of each lane, in the order of the schedule; `runs` are by cell id."""
    here = {_digest(each) for run in runs.values() for each in run.devices if each.here}

    def device(facts: DeviceFacts) -> str:
        return _HERE if facts.virtual or _digest(facts) in here else facts.id

    lanes: dict[str, str] = {}
    """By device, the one that its lane is named by."""
    for run in runs.values():
        found = {lanes.setdefault(name, name) for name in map(device, run.devices)}
        lanes = {name: min(found) if lane in found else lane for name, lane in lanes.items()}
    members: dict[str, list[Trial]] = {}
    for trial in trials:
        members.setdefault(lanes[device(runs[trial.cell_id].facts)], []).append(trial)
    return list(members.values())


def _digest(facts: DeviceFacts) -> str:
    """What an id says besides by which link the device is reached."""
    return facts.id.rpartition("-")[2]


def run_lanes(lanes: Sequence[L], run: Callable[[L], R], halt: Callable[[], object]) -> list[R]:
    """Run every lane to its end, at the same time where there are several, and return what each returned.

    Where one raises, or somebody interrupts, `halt`, which ends what runs on the devices, is called until all lanes have
    come to their end; then it is raised again.
    """
    if len(lanes) == 1:
        return [run(lanes[0])]
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as pool:
        futures: list[Future[R]] = []
        try:
            for lane in lanes:
                futures.append(pool.submit(run, lane))
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            # Whatever else happens meanwhile: no lane may go on unwatched while settings are put back and locks released.
            while True:
                with suppress(Exception, KeyboardInterrupt):
                    halt()
                with suppress(KeyboardInterrupt):
                    if not wait(futures, timeout=_AGAIN_S).not_done:
                        break
            raise
