"""Every metric has one definition, in `catalog`: name, unit, formula, source and the function that computes it.

`docs/metrics.md` is generated from this registry (`python -m meltrepro.measure.metrics > docs/metrics.md`). A metric
that cannot be had is absent with a reason; it is never zero, infinite or a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meltrepro.errors import UsageError
from meltrepro.manifest.yaml.suggest import suggest
from meltrepro.measure.catalog.answers import ANSWERS
from meltrepro.measure.catalog.contexts import CONTEXTS
from meltrepro.measure.catalog.device import DEVICE
from meltrepro.measure.catalog.energy import ENERGY, doubt_of
from meltrepro.measure.catalog.experience import EXPERIENCE
from meltrepro.measure.catalog.link import LINK
from meltrepro.measure.catalog.memory import MEMORY
from meltrepro.measure.catalog.speed import SPEED, WORK
from meltrepro.measure.catalog.thinking import THINKING
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


def directed(name: str, option: str) -> Metric:
    """A metric of which one direction is better; raises `UsageError` where an option names another."""
    known = {each.name: each for each in METRICS.values() if each.better and each.name not in QUOTIENTS}
    if name not in known:
        what = "has no better direction" if name in METRICS else "is no metric"
        raise UsageError(f"{option}: {name!r} {what}", hint=suggest(name, known) or "docs/metrics.md has them all")
    return known[name]


def compute(
    trace: Trace,
    recording: Recording | None = None,
    metered: Metered | None = None,
    most_w: float | None = None,
    right: int | None = None,
) -> Metrics:
    """Every metric of a trial, from its events, the device's samples and those of a meter; the device draws `most_w` at most.
    `right` of its answers are right, where they are checked.

    Each name is either in `values` or in `unavailable`.
    """
    facts = Facts(trace, recording, metered, most_w, right)
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
    metric.name: metric
    for metric in (*SPEED, *CONTEXTS, *LINK, *THINKING, *EXPERIENCE, *MEMORY, *DEVICE, *ENERGY, *ANSWERS, *WORK)
}
"""Every metric by name, in the order in which tables show them."""
QUOTIENTS = {name: metric.quotient for name, metric in METRICS.items() if metric.quotient is not None}
"""The metrics of which a cell's figure is a quotient of sums, with what is divided by what."""


def document() -> str:
    """The text of docs/metrics.md."""
    parts: list[str] = []
    for phase in dict.fromkeys(m.phase for m in METRICS.values()):
        parts += [
            f"### {phase.capitalize()}",
            "",
            "| metric | meaning | formula | from | no value when |",
            "| --- | --- | --- | --- | --- |",
        ]
        for m in (m for m in METRICS.values() if m.phase == phase):
            name = f"`{m.name}` {m.unit}" + (f", {m.better} is better" if m.better else "")
            parts.append(f"| {name} | {m.meaning} | {m.formula} | {m.source} | {m.invalid_when} |")
        parts.append("")
    return _DOCUMENT.format(tables="\n".join(parts).rstrip())


_DOCUMENT = """\
# Metrics

Generated from `meltrepro/measure/catalog`; to change a definition, change it there and run
`python -m meltrepro.measure.metrics > docs/metrics.md`.

## What is measured

A trial asks the model some prompts, one after the other. Each prompt with its answer is a **turn**:

```text
turn_begin  prefill_begin   prefill_end  first token     last token  turn_end
    | tokenize  |     prefill     |  sample  |   generation   |         |
    |<-------------- ttft_ms --------------->|
```

- **Reading (prefill).** The model takes in the whole prompt at once: `prefill_tps`, tokens of the prompt a second.
- **Writing (generation).** It writes one token after the other: `generation_tps`. The first token is part of the wait before it, so n tokens
  have n - 1 gaps between them. Each gap is one value of `itl_p50_ms`, `itl_p90_ms` and `itl_p99_ms`; `tpot_ms` is the mean gap of a turn.
  The shortest gaps, `itl_p1_ms`, are what a token takes where nothing disturbs: on a machine that others share they tell two builds apart
  with a tenth of the trials.
- **Waiting.** `ttft_ms` is what a user waits before anything appears. `stall_share`, `stalled_s` and `reading_met_share` say whether somebody
  who reads at an ordinary pace has to wait within the answer.
- **Memory.** `peak_memory_bytes` is the most that the program ever held, weights included. A part of it is the model's file, which the system can drop
  and read again (`rss_file_bytes`); the rest is the program's own (`rss_anon_bytes`).
- **Energy.** Power is sampled some times a second and summed over the phase. `energy_per_token_j` counts everything that the sensor
  sees; the `net` figures take off what the device draws at rest. What a sensor leaves out is in the pages on [Jetson](devices/jetson.md#rails),
  [Android](devices/android.md) and [power meters](meters.md).
- **The device.** Temperatures, clocks and `throttle_events` show heat. `cpu_pressure_share`, `cpu_steal_share` and `memory_pressure_share`
  show other work; where that is too much, the trial is [INVALID](protocol.md).

An example: in [this trial](runner.md#one-trial-from-begin-to-end) prompts of 28 and 27 tokens are read in 3.48 and 3.25 ms, and two answers of 8 tokens are
written in 1.29 and 1.33 ms from first to last token.

| metric | computed as | value |
| --- | --- | ---: |
| `prefill_tps` | (28 + 27) tokens / (3.48 + 3.25) ms | 8175 tokens/s |
| `generation_tps` | (7 + 7) gaps / (1.29 + 1.33) ms | 5349 tokens/s |
| `ttft_ms` | median of 3.51 and 3.29 ms | 3.40 ms |

Speeds are sums over sums, so long turns count more than short ones. Waits are medians over turns.

## Definitions

Each value belongs to one trial. It comes from that trial's `events.jsonl` ([runner.md](runner.md)), its `samples.jsonl` ([sampling.md](sampling.md))
and, with an external meter, `meter.jsonl`.

- Times are the device's monotonic clock. Tokens are counted, never estimated.
- The untimed warm-up inside a trial is part of no metric.
- A metric that cannot be had is absent, with the reason. It is never zero instead.
- Figures made of samples have a bound: how far the truth may be from them, given the clocks, the rate of the samples and their gaps.

{tables}

## Operators

With `measure: {{operators: true}}` each cell gets one more trial, a profiled one. Profiling stops after every operator, which slows
the trial: it is in no summary, and its slowdown is stated. Each operator has two figures: its share of the decoder's time (calls x mean
time of a call / time within the decoder), and the mean time of one call. Do not mistake one for the other. In MELT's data the LM head,
which runs once a token, has 45 % of the sum of means, but 2.5 % of the time, since the others run in each of 32 layers. Shares are
shown where operators explain at least 90 % of the decoder's time.

## From trials to a cell

A cell's figure is the **median over its repetitions**. Warm-ups, profiled trials, failed ones and INVALID ones are left out
([protocol.md](protocol.md)). Beside it stand `n`, the number of repetitions with a value, and `low` and `high`, an interval that holds the true
median at 95 %, whatever the distribution. Of five repetitions and fewer it goes from the smallest value to the largest, and holds at 94 % (5), 88 % (4) or
75 % (3). Fewer than three are too few to judge, which is said wherever they are shown ([why this interval](protocol.md#medians-and-their-intervals)).

What a right answer costs, `time_per_right_answer_s` and `energy_per_right_answer_j`, is one figure for all repetitions: the sum of what they took by the number of
their right answers. So it has no interval, and repetitions without a right answer count.

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
