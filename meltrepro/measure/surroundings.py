"""What surrounded trials and changes their figures, though nobody disbelieves them for it; said, and nothing is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from meltrepro.measure.metrics import Metrics
from meltrepro.record.trace import Said
from meltrepro.stats.summary import TO_JUDGE, TOO_FEW, Summary
from meltrepro.words import counted

STOLEN = 0.01
"""Share of the CPUs' time that went to other virtual machines from which on it is said."""
PRESSURE = "cpu_pressure_share"
NO_CALIBRATION = "none"
"""What a cell's `device.calibration` says of a device that has none."""


def too_few(n: int, summaries: Mapping[str, Summary]) -> Iterator[str]:
    """What is to be said where a cell, or a metric of it, has fewer repetitions than a judgement takes."""
    if 0 < n < TO_JUDGE:
        yield f"{counted(n, 'repetition')}: {TOO_FEW}"
        return
    few = [name for name, summary in summaries.items() if summary.too_few]
    if few:
        yield f"{', '.join(few)}: {TOO_FEW}, fewer than {TO_JUDGE} repetitions have a value"


def remarks(ran_as: Said, ran_unlike: Mapping[str, str], measured: Sequence[Metrics]) -> Iterator[str]:
    """What repetitions of one cell were exposed to."""
    stolen = max((each.values.get("cpu_steal_share", 0.0) for each in measured), default=0.0)
    if stolen >= STOLEN:
        yield f"a hypervisor gave up to {stolen:.1%} of the CPUs' time to others"
    nice = ran_as.get("process.nice", 0)
    if nice != 0:
        yield f"the runner ran at niceness {nice}, so that the scheduler did not treat it like others"
    scheduler = ran_as.get("process.scheduler", "other")
    if scheduler != "other":
        yield f"the runner was scheduled as {scheduler}"
    yield from (f"repetitions differ in {name}: {values}" for name, values in ran_unlike.items())
    sampled = [each for each in measured if "sampler_overhead_share" in each.values]
    unseen = {reason for each in sampled if (reason := each.unavailable.get(PRESSURE))}
    if unseen:
        yield f"whether anything else kept the CPUs busy is not judged: {'; '.join(sorted(unseen))}"


def uncalibrated(target: str) -> str:
    """What is to be said of a device whose steadiness nobody has measured."""
    return f"how much two sessions of {target} differ is not known: meltrepro calibrate {target}"


def crowd(cpus: int) -> str:
    """What is to be said of more threads than CPUs."""
    return f"more threads than its {counted(cpus, 'CPU')}: they wait for each other, so that cpu pressure is not judged"


def cpus_of(ran_as: Said, cores: object) -> int | None:
    """How many CPUs a runner could use: those that the kernel allowed it, else all of its device; `None` for unknown."""
    allowed = ran_as.get("process.cpus")
    if isinstance(allowed, str):
        ranges = [part.split("-") for part in allowed.split(",")]
        if all(len(ends) <= 2 and all(end.isdecimal() and len(end) < 6 for end in ends) for ends in ranges):
            return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
    return cores if isinstance(cores, int) and cores > 0 else None
