"""Whether a trial's figures may be believed: VALID, or INVALID with every reason; and what is odd about repetitions.

Judged from the record whenever it is read, by the limits that the manifest declared before anything was measured. What
is invalid stays on disk and is shown; summaries leave it out. What is only odd is said, and nothing is dropped for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from meltrepro.accuracy.scores import Score
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.energy import RAILS
from meltrepro.measure.meterfile import PREFIX
from meltrepro.measure.metering import Metered
from meltrepro.measure.metrics import Metrics
from meltrepro.measure.sensor_plan import period_s
from meltrepro.record.outcomes import FailureKind, TrialFailure
from meltrepro.record.samples import FaultKind, Recording, SensorFault
from meltrepro.record.temperature import CHANNELS
from meltrepro.record.trace import Trace
from meltrepro.stats.stability import Autocorrelation, Drift, autocorrelation, drift, outliers
from meltrepro.stats.summary import Summary
from meltrepro.words import counted

SPEED = "generation_tps"
"""The metric whose noise is judged."""
_FEWEST_FOR_NOISE = 3
_NEVER_CONSTANT = ("W", "A")
"""Units of gauges that show a working meter by their noise."""
_STUCK_PERIODS = 20
"""Samples in a row, at the source's own rate, from which on an unchanged value is no chance."""
_STUCK_S = 1.0
"""Nor is it over so long a time: one that reads faster may show its last digit unchanged for a while."""
BUSY = 0.25
"""Share of the time in which some task may wait for a CPU where no limit is declared (docs/protocol.md has the figures)."""
WATCHED = ("prefill_tps", "generation_tps", "ttft_ms", "energy_per_token_j")
"""Metrics whose repetitions are looked at."""
_LEAST_CHANGE = 0.02
"""A drift over the campaign that is smaller is not worth a remark, established or not; nor is a value that lies nearer to
the median an outlier, though the others be the same to the last digit."""
_CACHED_WITHIN = 0.01
"""How much of a file may be in the page cache when none is to be, and may lack when all is."""
_MOST_LISTED = 3
"""Repetitions whose reasons are listed."""


class Reason(StrEnum):
    """Why figures are not believed; each finding begins with one."""

    too_few_tokens = "too-few-tokens"
    too_short = "too-short"
    truncated = "truncated"
    throttled = "throttled"
    memory_pressure = "memory-pressure"
    cpu_pressure = "cpu-pressure"
    page_cache = "page-cache"
    too_hot = "too-hot"
    missing_samples = "missing-samples"
    sampler_died = "sampler-died"
    faulty_sensor = "faulty-sensor"
    clock_jumped = "clock-jumped"
    clock_unknown = "clock-unknown"
    implausible_power = "implausible-power"
    uncertain = "uncertain"
    fallback = "fallback"
    noisy = "noisy"
    unsteady = "unsteady"


@dataclass(frozen=True)
class Flaw:
    """One reason, with the value that was found and the one that is asked for."""

    reason: Reason | FailureKind
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Validity:
    """The verdict on a trial or a cell."""

    findings: tuple[Flaw, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.findings

    def without(self, reason: Reason) -> Validity:
        """The verdict where one reason does not count."""
        return Validity(tuple(flaw for flaw in self.findings if flaw.reason is not reason))

    def __str__(self) -> str:
        return "VALID" if self.valid else f"INVALID({'; '.join(map(str, self.findings))})"


def judge_trial(
    trace: Trace,
    metrics: Metrics,
    recording: Recording | None,
    limits: Limits,
    metered: Metered | None = None,
    jumped_s: float = 0.0,
    cpus: int | None = None,
    backend: str | None = None,
) -> Validity:
    """The verdict on one trial that ended well.

    `jumped_s` is how far clocks moved apart meanwhile, `cpus` how many it could use, `backend` what had to compute.
    """
    return Validity(
        (
            *_work(trace, limits),
            *_caching(trace),
            *_device(metrics, limits),
            *_busy(trace, metrics, limits, cpus),
            *_samples(trace, recording, limits),
            *_samples(trace, metered.recording if metered else None, limits),
            *_clocks(metered, jumped_s, limits),
            *([Flaw(Reason.implausible_power, metrics.doubt)] if metrics.doubt else []),
            *_uncertain(metrics, limits),
            *_fallback(trace, backend),
        )
    )


def judge_failure(failure: TrialFailure) -> Validity:
    """The verdict on a trial that failed: a closed gate, a metric that is required and cannot be had, a crash."""
    return Validity((Flaw(failure.kind, failure.detail.split("\n", 1)[0]),))


def judge_cell(speed: Summary | None, limits: Limits) -> Validity:
    """The verdict on the repetitions of a cell together: whether they agree."""
    if speed is None or speed.n < _FEWEST_FOR_NOISE or limits.noise is None or (speed.cv or 0.0) <= limits.noise:
        return Validity()
    return Validity((Flaw(Reason.noisy, f"{SPEED} varies by {speed.cv:.1%} (CV), at most {limits.noise:.1%}"),))


@dataclass(frozen=True)
class Exclusion:
    """Repetitions of a cell that are INVALID or failed."""

    count: str
    """`1 of 3 repetitions INVALID`."""
    reasons: str

    def __str__(self) -> str:
        return f"{self.count}: {self.reasons}"


def excluded(asked: int, judged: Mapping[str, Validity], what: str) -> Exclusion:
    """Of a cell's repetitions those that are `what`."""
    names = sorted(judged)
    listed = [f"{name} {'; '.join(map(str, judged[name].findings))}" for name in names[:_MOST_LISTED]]
    more = [f"{len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
    return Exclusion(f"{len(names)} of {counted(asked, 'repetition')} {what}", ", ".join([*listed, *more]))


def judge_scores(scores: Sequence[Sequence[Score]]) -> Validity:
    """The verdict on the scores of a cell's repetitions: nothing in a scorer is left to chance, so they must be equal."""
    different = [found for found in scores if list(found) != list(scores[0])]
    if not different:
        return Validity()
    texts = [", ".join(f"{score.metric} {score.value:.6g}" for score in found) for found in (scores[0], different[0])]
    return Validity((Flaw(Reason.unsteady, f"repetitions differ: {texts[0]}; {texts[1]}"),))


@dataclass(frozen=True)
class Steadiness:
    """What the repetitions of one metric say about each other, in the order in which they were measured."""

    metric: str
    outliers: tuple[str, ...]
    """Names of the trials that lie far from the others."""
    autocorrelation: Autocorrelation | None
    drift: Drift | None
    """Both `None` for too few repetitions."""

    def remarks(self) -> list[str]:
        """What a reader of the summary should know; empty where nothing is odd."""
        found = []
        if self.outliers:
            are = "are outliers" if len(self.outliers) > 1 else "is an outlier"
            found.append(f"{', '.join(self.outliers)} {are}")
        if self.drift is not None and self.drift.established and abs(self.drift.change or 0.0) >= _LEAST_CHANGE:
            change = self.drift.change or 0.0
            found.append(f"{'rises' if change > 0 else 'falls'} by {abs(change):.1%} over the campaign")
        elif self.autocorrelation is not None and not self.autocorrelation.independent:
            found.append(
                f"repetitions depend on the one before (autocorrelation {self.autocorrelation.coefficient:.2f}): "
                "the interval is not to be relied on"
            )
        return [f"{self.metric}: {one}" for one in found]


def steadiness(metric: str, values: Sequence[tuple[str, float, float]]) -> Steadiness:
    """Of one metric's repetitions: name of the trial, time in seconds, value. Raises `RecordError`."""
    ordered = sorted(values, key=lambda one: one[1])
    numbers = [value for _, _, value in ordered]
    centre = median(numbers) if numbers else 0.0
    far = [i for i in outliers(numbers) if abs(numbers[i] - centre) >= _LEAST_CHANGE * abs(centre)]
    return Steadiness(
        metric,
        tuple(ordered[i][0] for i in far),
        autocorrelation(numbers),
        drift([time_s for _, time_s, _ in ordered], numbers),
    )


def _work(trace: Trace, limits: Limits) -> list[Flaw]:
    found = []
    tokens = sum(turn.n_gen for turn in trace.turns)
    # Where prompts alone are measured, one token is all that was asked for; a limit that somebody declared holds there, too.
    prompts_alone = trace.turns and all((turn.n_gen, turn.stop) == (1, "length") for turn in trace.turns)
    if tokens < limits.min_tokens and not (prompts_alone and limits.min_tokens == Limits().min_tokens):
        found.append(Flaw(Reason.too_few_tokens, f"{tokens} generated, at least {limits.min_tokens}"))
    seconds = sum(turn.token_ns[-1] - turn.token_ns[0] for turn in trace.turns if turn.token_ns) / 1e9
    if seconds < limits.min_generation_s:
        found.append(Flaw(Reason.too_short, f"{seconds:.3g} s of generation, at least {limits.min_generation_s:g}"))
    cut = sum(turn.stop == "context" for turn in trace.turns)
    if cut and not limits.truncated:
        found.append(
            Flaw(Reason.truncated, f"{cut} of {counted(len(trace.turns), 'turn')} did not fit into the context")
        )
    return found


def _caching(trace: Trace) -> list[Flaw]:
    load = trace.load
    if load.asked is None:
        return []
    if load.cached_share is None:
        return [Flaw(Reason.page_cache, f"a {load.asked} load is asked for, the runner does not say what was cached")]
    if abs(load.cached_share - (load.asked == "warm")) <= _CACHED_WITHIN:
        return []
    found = f"{load.cached_share:.1%} of the model's files lay in the page cache"
    return [Flaw(Reason.page_cache, f"a {load.asked} load is asked for, {found}")]


def _device(metrics: Metrics, limits: Limits) -> list[Flaw]:
    """A limit on what a device does not show is no finding: whoever needs it makes the metric required."""
    checks = (
        (Reason.throttled, "throttle_events", limits.throttle_events, "{:.0f} times, at most {:g}"),
        (Reason.memory_pressure, "memory_pressure_share", limits.memory_pressure, "{:.1%} of the time, at most {:.1%}"),
        (Reason.too_hot, "temperature_max_c", limits.temperature_c, "{:.1f} degC, at most {:g}"),
    )
    return [
        Flaw(reason, text.format(metrics.values[name], limit))
        for reason, name, limit, text in checks
        if limit is not None and name in metrics.values and metrics.values[name] > limit
    ]


def crowded(threads: int, cpus: int | None) -> bool:
    """Whether a runner has more threads than CPUs, so that they wait for each other whatever else there is."""
    return cpus is not None and threads > cpus


def _busy(trace: Trace, metrics: Metrics, limits: Limits, cpus: int | None) -> list[Flaw]:
    """Whether something else wanted the CPUs."""
    found = metrics.values.get("cpu_pressure_share")
    most = BUSY if limits.cpu_pressure is None else limits.cpu_pressure
    if found is None or found <= most or crowded(trace.context.threads, cpus):
        return []
    return [Flaw(Reason.cpu_pressure, f"tasks waited for a CPU {found:.1%} of the time, at most {most:.1%}")]


def _samples(trace: Trace, recording: Recording | None, limits: Limits) -> list[Flaw]:
    if recording is None:
        return []
    found = []
    if recording.end_ns is None:
        found.append(Flaw(Reason.sampler_died, "the samples have no end"))
    spared = _spared(recording) if limits.temperature_c is None else frozenset()
    found += _faults(recording, spared)
    found += _stuck(recording)
    begin_ns, end_ns = trace.hello.t_ns, trace.done_ns
    for index, series in enumerate(recording.series):
        if series.channel.name.startswith("process.") or index in spared:
            continue  # the process comes and goes
        expected = (end_ns - begin_ns) / 1e9 / period_s(series.channel.refresh_s, recording.header.rate_hz)
        got = sum(begin_ns <= t <= end_ns for t in series.t_ns)
        if expected >= 2 and got + 1 < limits.sample_share * expected:
            found.append(
                Flaw(Reason.missing_samples, f"{series.channel.name} has {got} of {expected:.0f} while the runner ran")
            )
    return found


_SAID = 60
"""Letters of what a sensor said that a reason quotes."""


def _spared(recording: Recording) -> frozenset[int]:
    """Thermometers that could not be read all the time, where others could: a modem's or a radio's come and go with it."""
    thermometers = {i for i, series in enumerate(recording.series) if series.channel.name.startswith(CHANNELS)}
    faulty = {fault.channel for fault in recording.faults} & thermometers
    whole = any(len(recording.series[i]) for i in thermometers - faulty)
    return frozenset(faulty) if whole else frozenset()


def _faults(recording: Recording, spared: Set[int]) -> list[Flaw]:
    """The first fault of each kind that a channel has, and how many there are; none of channels that are spared."""
    kinds: dict[tuple[int, FaultKind], list[SensorFault]] = {}
    for fault in recording.faults:
        if fault.channel in spared:
            continue
        kinds.setdefault((fault.channel, fault.kind), []).append(fault)
    found = []
    for (channel, kind), faults in kinds.items():
        said = " ".join(faults[0].detail.split())  # what a sensor says instead of a number may be a page
        said = said if len(said) <= _SAID else f"{said[:_SAID]}..."
        detail = f"{recording.header.channels[channel].name} {kind}: {said}"
        times = f" ({len(faults)} times)" if len(faults) > 1 else ""
        found.append(Flaw(Reason.faulty_sensor, detail + times))
    return found


def _clocks(metered: Metered | None, jumped_s: float, limits: Limits) -> list[Flaw]:
    found = []
    if limits.clock_jump_s is not None and jumped_s > limits.clock_jump_s:
        detail = f"two clocks moved apart by {jumped_s:.3g} s: one was set, or the device was suspended"
        found.append(Flaw(Reason.clock_jumped, f"{detail}; at most {limits.clock_jump_s:g} s"))
    if metered is not None and metered.problem is not None:
        found.append(Flaw(Reason.clock_unknown, f"the meter's samples have no place in time: {metered.problem}"))
    return found


def _stuck(recording: Recording) -> list[Flaw]:
    """Meters that show one and the same value over and over: what they measure is never quite constant.

    Monitors on boards have steps so coarse that theirs may be, for seconds.
    """
    found = []
    for series in recording.series:
        if series.channel.name.startswith(RAILS):
            continue
        if series.channel.kind == "gauge" and series.channel.unit in _NEVER_CONSTANT and any(series.values):
            period = period_s(series.channel.refresh_s, recording.header.rate_hz)
            stretches = series.stuck(max(_STUCK_PERIODS * period, _STUCK_S), fewest=_STUCK_PERIODS)
            if stretches:
                seconds = sum(stretch.end_ns - stretch.begin_ns for stretch in stretches) / 1e9
                detail = f"{series.channel.name} stuck: the same value for {seconds:.3g} s"
                if series.channel.name.startswith(PREFIX):
                    detail += "; if it has a new value less often than it writes one, say how often: meter.refresh_s"
                found.append(Flaw(Reason.faulty_sensor, detail))
    return found


def _fallback(trace: Trace, backend: str | None) -> list[Flaw]:
    """What another backend computed than the one that is required, and why."""
    if backend is None:
        return []
    if trace.placement is None:
        return [Flaw(Reason.fallback, f"{backend} is required, and the engine does not say where it computes")]
    found = trace.placement.elsewhere(backend)
    if not found and trace.placement.operators:
        return []
    names = [*dict.fromkeys(f"{each} on {each.backend}" for each in found)]
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    reasons = [*dict.fromkeys(each.why for each in found if each.why)] or ["no such device is there"]
    what = f"{', '.join(names[:_MOST_LISTED])}{more}" if names else "no operator"
    return [Flaw(Reason.fallback, f"{what}, and {backend} is required: {'; '.join(reasons[:_MOST_LISTED])}")]


def _uncertain(metrics: Metrics, limits: Limits) -> list[Flaw]:
    """Figures whose bound is too wide; the widest says enough."""
    ratios = {name: bound / abs(metrics.values[name]) for name, bound in metrics.bounds.items() if metrics.values[name]}
    wide = {name: ratio for name, ratio in ratios.items() if limits.bound is not None and ratio > limits.bound}
    if not wide:
        return []
    name = max(wide, key=wide.__getitem__)
    return [Flaw(Reason.uncertain, f"{name} is known to {wide[name]:.1%} only, at most {limits.bound:.1%}")]
