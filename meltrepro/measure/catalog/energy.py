"""Energy, charge and power of each phase; absent where the device shows none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meltrepro.measure import energy
from meltrepro.measure.catalog.answers import NONE_RIGHT, UNCHECKED, questions, right_ones
from meltrepro.measure.catalog.thinking import answer_spans, thinking_spans
from meltrepro.measure.integrals import Amount, Integral, NoValue, SampleLimits
from meltrepro.measure.metric import Facts, Metric
from meltrepro.measure.sensor_plan import period_s
from meltrepro.record.samples import Recording
from meltrepro.record.trace import Span

_GAP_PERIODS = 2.5
_LEAST_IDLE_S = 2.0
"""Time at rest from which a baseline is believed."""

_MOST_OF_METER = 2.0
"""A part draws no more than the whole; by so much sensors of both may be wrong."""

Spans = Callable[[Facts], Sequence[Span]]
Part = Callable[[Integral, Facts], Amount]


def _prefill(facts: Facts) -> Sequence[Span]:
    return [prefill for _, prefill in facts.prefills]


def _generation(facts: Facts) -> Sequence[Span]:
    return [Span(turn.token_ns[0], turn.token_ns[-1]) for turn in facts.flowing]


def _load(facts: Facts) -> Sequence[Span]:
    return [Span(facts.trace.load.begin_ns, facts.trace.load.end_ns)]


def _idle(facts: Facts) -> Sequence[Span]:
    """From where all that shows power has begun, and the device's sampler if there is one, to the start of the runner."""
    powered, _ = facts.powered
    units = (energy.POWER, energy.ENERGY, energy.CURRENT, energy.VOLTAGE)
    begins = [series.t_ns[0] for series in powered.series if series.t_ns and series.channel.unit in units]
    if facts.recording is not None:
        begins.append(min((series.t_ns[0] for series in facts.recording.series if series.t_ns), default=0))
    begin_ns, end_ns = max(begins, default=0), facts.trace.hello.t_ns
    if (end_ns - begin_ns) / 1e9 < _LEAST_IDLE_S:
        raise NoValue(f"the device was not sampled at rest for {_LEAST_IDLE_S:g} s; ask for it: protocol.idle_s")
    return [Span(begin_ns, end_ns)]


def _integral(facts: Facts, spans: Spans, *, charge: bool = False) -> Integral:
    recording, bound_ns = facts.powered
    where = spans(facts)
    clock_ns = bound_ns(where[0].begin_ns, where[-1].end_ns)
    supply = facts.supply
    return (energy.charge if charge else energy.energy)(supply, where, _limits(supply, recording), clock_ns)


def _limits(supply: energy.Supply, recording: Recording) -> SampleLimits:
    source = supply.power or supply.counter
    refresh_s = source.channel.refresh_s if source else None
    return SampleLimits(gap_s=_GAP_PERIODS * period_s(refresh_s, recording.header.rate_hz))


def doubt_of(facts: Facts) -> str | None:
    """Why what a meter shows cannot be the power of this device, if it cannot; nothing without a meter."""
    if facts.metered is None or facts.metered.recording is None:
        return None
    try:
        _ = facts.supply
    except energy.Implausible as error:
        return str(error)
    except NoValue:
        return None
    try:
        metered = _integral(facts, lambda _: [facts.work_ns]).total
        own = energy.supply_of(facts.recorded, facts.most_w)
        shown = energy.energy(own, [facts.work_ns], _limits(own, facts.recorded)).total
    except NoValue:
        return None
    if shown.value - shown.bound <= _MOST_OF_METER * (metered.value + metered.bound):
        return None
    name = (own.power or own.counter or facts.recorded.series[0]).channel.name
    return (
        f"the device's own {name} shows {shown.value:.4g} J, the meter {metered.value:.4g} J in the same time, though it "
        "watches the whole: are the units in targets.NAME.meter.columns right?"
    )


def _of(spans: Spans, part: Part, *, charge: bool = False) -> Callable[[Facts], Amount]:
    return lambda facts: part(_integral(facts, spans, charge=charge), facts)


def _per_token(integral: Integral, facts: Facts) -> Amount:
    return integral.total.scaled(1 / sum(turn.n_written for turn in facts.flowing))


def _per_prompt_token(integral: Integral, facts: Facts) -> Amount:
    return integral.total.scaled(1 / sum(n for n, _ in facts.prefills))


def _net_per_token(integral: Integral, facts: Facts) -> Amount:
    return _net(integral, facts).scaled(1 / sum(turn.n_written for turn in facts.flowing))


def _per_right_answer(integral: Integral, facts: Facts) -> Amount:
    return integral.total.scaled(1 / right_ones(facts))


def _net(integral: Integral, facts: Facts) -> Amount:
    return energy.above_idle(integral, _integral(facts, _idle))


def _mah(integral: Integral, _: Facts) -> Amount:
    return integral.total.scaled(1 / 3.6)


def _mah_per_token(integral: Integral, facts: Facts) -> Amount:
    return _per_token(integral, facts).scaled(1 / 3.6)


def _metric(
    name: str,
    unit: str,
    meaning: str,
    formula: str,
    compute: Callable[[Facts], Amount],
    quotient: tuple[str, str] | None = None,
) -> Metric:
    return Metric(
        name=name,
        unit=unit,
        phase="energy",
        better=None if name == "idle_power_w" else "lower",
        meaning=meaning,
        formula=formula,
        source="samples in W, J or A and V; token, prefill_begin, prefill_end, hello",
        invalid_when="the device shows no power, its unit is implausible, samples are missing in the phase"
        + (", or it was not sampled at rest" if "net" in name or "idle" in name else "")
        + (", or thinking is not told from answers" if name in ("thinking_energy_j", "answer_energy_j") else "")
        + (f", {UNCHECKED}" if name == "answering_energy_j" or quotient else "")
        + (f", or {NONE_RIGHT}" if quotient else ""),
        compute=compute,
        quotient=quotient,
    )


_INTEGRAL = "trapezoidal rule over the samples, edges interpolated; or the growth of a counter"
ENERGY = (
    _metric(
        "idle_power_w",
        "W",
        "mean power at rest, before the runner starts",
        f"energy from the first sample to hello / that time; {_INTEGRAL}",
        _of(_idle, lambda integral, _: integral.mean),
    ),
    _metric(
        "load_energy_j",
        "J",
        "energy of loading the weights",
        f"integral of power from load_begin to load_end; {_INTEGRAL}",
        _of(_load, lambda integral, _: integral.total),
    ),
    _metric(
        "prefill_energy_j",
        "J",
        "energy of reading all prompts",
        f"integral of power over all prefills; {_INTEGRAL}",
        _of(_prefill, lambda integral, _: integral.total),
    ),
    _metric(
        "generation_energy_j",
        "J",
        "energy of writing all answers",
        f"integral of power from first to last token of each turn; {_INTEGRAL}",
        _of(_generation, lambda integral, _: integral.total),
    ),
    _metric(
        "thinking_energy_j",
        "J",
        "energy of a reasoning model's thinking",
        f"integral of power from the token before each thinking_begin, or the first, to the last before its end; {_INTEGRAL}",
        _of(thinking_spans, lambda integral, _: integral.total),
    ),
    _metric(
        "answer_energy_j",
        "J",
        "energy of its answers, thinking left out",
        f"integral of power from the token before each answer_begin, or the first, to the last of its turn; {_INTEGRAL}",
        _of(answer_spans, lambda integral, _: integral.total),
    ),
    _metric(
        "prefill_net_energy_j",
        "J",
        "the same beyond what the device draws at rest",
        "prefill_energy_j - idle_power_w x time of all prefills",
        _of(_prefill, _net),
    ),
    _metric(
        "generation_net_energy_j",
        "J",
        "the same beyond what the device draws at rest",
        "generation_energy_j - idle_power_w x time from first to last token of each turn",
        _of(_generation, _net),
    ),
    _metric(
        "energy_per_prompt_token_j",
        "J",
        "energy of reading one token of a prompt",
        "prefill_energy_j / sum of n over turns",
        _of(_prefill, _per_prompt_token),
    ),
    _metric(
        "energy_per_token_j",
        "J",
        "energy of writing one token",
        "generation_energy_j / sum of n_gen - 1 over turns",
        _of(_generation, _per_token),
    ),
    _metric(
        "net_energy_per_token_j",
        "J",
        "the same beyond what the device draws at rest",
        "generation_net_energy_j / sum of n_gen - 1 over turns",
        _of(_generation, _net_per_token),
    ),
    _metric(
        "prefill_charge_mah",
        "mAh",
        "charge drawn while prompts were read",
        "integral of current over all prefills / 3.6 C; or the growth of a counter of charge",
        _of(_prefill, _mah, charge=True),
    ),
    _metric(
        "generation_charge_mah",
        "mAh",
        "charge drawn while answers were written",
        "integral of current from first to last token of each turn / 3.6 C; or the growth of a counter of charge",
        _of(_generation, _mah, charge=True),
    ),
    _metric(
        "charge_per_token_mah",
        "mAh",
        "charge of writing one token",
        "generation_charge_mah / sum of n_gen - 1 over turns",
        _of(_generation, _mah_per_token, charge=True),
    ),
    _metric(
        "prefill_power_w",
        "W",
        "mean power while prompts were read",
        "prefill_energy_j / time of all prefills",
        _of(_prefill, lambda integral, _: integral.mean),
    ),
    _metric(
        "generation_power_w",
        "W",
        "mean power while answers were written",
        "generation_energy_j / time from first to last token of each turn",
        _of(_generation, lambda integral, _: integral.mean),
    ),
    _metric(
        "generation_peak_power_w",
        "W",
        "highest power seen while answers were written",
        "largest sample; of a counter the steepest growth between two samples",
        _of(_generation, lambda integral, _: Amount(integral.peak, 0.0)),
    ),
    _metric(
        "answering_energy_j",
        "J",
        "energy of all questions that are checked: reading, thinking and answering",
        f"integral of power from turn_begin to turn_end of each turn; {_INTEGRAL}",
        _of(questions, lambda integral, _: integral.total),
    ),
    _metric(
        "energy_per_right_answer_j",
        "J",
        "energy for each right answer, that of wrong ones included",
        "answering_energy_j / right_answers; of a cell the sums over its repetitions",
        _of(questions, _per_right_answer),
        quotient=("answering_energy_j", "right_answers"),
    ),
)
