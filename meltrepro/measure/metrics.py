"""Every metric has one definition, in `catalog`: name, unit, formula, source and the function that computes it.

`docs/metrics.md` is generated from this registry (`python -m meltrepro.measure.metrics > docs/metrics.md`). A metric
that cannot be had is absent with a reason; it is never zero, infinite or a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meltrepro.measure.catalog.device import DEVICE
from meltrepro.measure.catalog.energy import ENERGY, doubt_of
from meltrepro.measure.catalog.experience import EXPERIENCE
from meltrepro.measure.catalog.memory import MEMORY
from meltrepro.measure.catalog.speed import SPEED, WORK
from meltrepro.measure.integrals import Amount, NoValue
from meltrepro.measure.metering import Metered
from meltrepro.measure.metric import Facts, Metric
from meltrepro.record.samples import Recording
from meltrepro.record.trace import Trace


@dataclass(frozen=True)
class Metrics:
    values: Mapping[str, float]
    unavailable: Mapping[str, str]
    """Metric name -> why there is no value."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Metric name -> how far from it the truth may be, in its unit, where clocks, gaps and rates of samples leave doubt."""
    doubt: str | None = None
    """Why what a meter shows cannot be the power of this device."""


def compute(
    trace: Trace, recording: Recording | None = None, metered: Metered | None = None, most_w: float | None = None
) -> Metrics:
    """Every metric of a trial, from its events, the device's samples and those of a meter; the device draws `most_w` at most.

    Each name is either in `values` or in `unavailable`.
    """
    facts = Facts(trace, recording, metered, most_w)
    values: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    bounds: dict[str, float] = {}
    for metric in METRICS.values():
        try:
            value = metric.compute(facts)
        except NoValue as error:
            unavailable[metric.name] = str(error)
            continue
        if isinstance(value, Amount):
            bounds[metric.name] = value.bound
        values[metric.name] = value.value if isinstance(value, Amount) else value
    return Metrics(values, unavailable, bounds, doubt_of(facts))


METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (*SPEED, *EXPERIENCE, *MEMORY, *DEVICE, *ENERGY, *WORK)
}
"""Every metric by name, in the order in which tables show them."""


def document() -> str:
    """The text of docs/metrics.md."""
    rows = [
        "| name | unit | phase | better | meaning | formula | source | no value when |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for m in METRICS.values():
        cells = (f"`{m.name}`", m.unit, m.phase, m.better or "-", m.meaning, m.formula, m.source, m.invalid_when)
        rows.append(f"| {' | '.join(cells)} |")
    return _DOCUMENT.format(table="\n".join(rows))


_DOCUMENT = """\
# Metrics

Generated from `meltrepro/measure/catalog`; to change a definition, change it there and run
`python -m meltrepro.measure.metrics > docs/metrics.md`.

Each value below belongs to one trial and comes from that trial's `events.jsonl` ([runner.md](runner.md)) and
`samples.jsonl`, and those of an external meter `meter.jsonl` ([sampling.md](sampling.md)): times are the device's monotonic clock, tokens are counted, never estimated. The untimed warm-up inside a trial is part of no
metric. A metric that cannot be had is absent, with the reason; it is never zero in its place. Figures made of samples have a
bound: how far the clocks, the rate of the samples and their gaps allow the truth to be from them.

{table}

## Operators

With `measure: {{operators: true}}` each cell gets one profiled trial more. Profiling stops after every operator, so that
trial is in no summary, and its own slowdown is stated. Of each operator and module two figures are given: its share of
the decoder's time (calls x mean time of a call / time within the decoder) and the mean time of one call. They are easily
mistaken for each other: an LM head that runs once per token beside operators that run in each of 32 layers has 45 % of
the sum of means and 2.5 % of the time (MELT's data). Shares are published where operators explain at least 90 % of the
decoder's time.

## From trials to a cell

A cell's figure is the **median over its repetitions** that ended well; warm-up trials, profiled trials and failed ones
are left out, as are INVALID ones ([protocol.md](protocol.md)). Beside it stand `n` (repetitions with a value), `low` and `high`: the narrowest interval from one
repetition's value to another's that holds the true median at 95 %, whatever the distribution; of five values and fewer the
smallest and the largest, which hold at 94 % (5), 88 % (4) or 75 % (3). Fewer than three are too few to judge, and said to be
wherever they are shown ([why this interval](protocol.md#medians-and-their-intervals)).

In MLflow, for a metric `generation_tps`:

| metric | value |
| --- | --- |
| `generation_tps` | median over repetitions |
| `uncertainty/generation_tps.low`, `.high` | interval |
| `uncertainty/generation_tps.n` | repetitions with a value |
| `uncertainty/energy_per_token_j.bound` | of a figure made of samples: the largest bound of any repetition |
| `uncertainty/generation_tps.outliers`, `.drift`, `.autocorrelation` | how steady the repetitions are ([protocol.md](protocol.md)) |
| `uncertainty/inter_token_ms.within_cv`, `.between_cv` | spread of the time between tokens within repetitions and between them |
| `values/generation_tps` | value of each repetition; step = number of the repetition |
| `inter_token_ms/r000` | gaps between tokens, of the first repetition alone; step = number of the gap |
| artifact `tokens/r000.parquet` | every token of it: conversation, turn, token, id, time, gap |
| artifact `unavailable.json` | each metric that has no value, and why |
| params `process.*`, `effective.*` | how the kernel treated the runner, and what the engine made of the request ([runner.md](runner.md)) |

A series longer than 1,000 points is thinned (MLflow draws 320): of each stretch of neighbours the smallest and the largest stay, at
their true place. The table of tokens and the events, both artifacts, hold all of them. How to look at all this: [MLflow](mlflow.md).
"""


if __name__ == "__main__":
    print(document(), end="")
