"""False alarms and power of `meltrepro compare`: two synthetic campaigns, from their folders to the verdict.

Each campaign is one session of its own with the noise of `replay_error_rates`: log-normal trials, drift, stray slow
trials, a level of the session (CV 1 %). Loading has noise of its own; reading and writing share theirs, as one CPU does.
At a true difference of x % the second campaign takes 1 + x/100 times as long for everything but memory. A false alarm is
an A/A campaign (x = 0) in which any judged metric DIFFERS; power is the share in which generation_tps DIFFERS. The first
three columns are about generation_tps as well, and so is the last: its interval excludes a ratio of 1, whatever the
margin. A difference of less than the margin is not to be called DIFFERS, which is why 2 % needs a smaller one.

    python -m tests.benchmarks.false_alarms [--campaigns 200] [--repetitions 10] ...
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import trial as record
from meltrepro.replay.compare import compare
from meltrepro.stats.equivalence import Design, ReplayDecision, ReplayVerdict
from tests.benchmarks._table import figure, finish
from tests.benchmarks.replay_error_rates import Noise, session
from tests.support.campaigns import MS, Cell, Trial, Turn, as_lines, build_campaign, events

CVS = (0.02, 0.05)
DIFFERENCES = (0.0, 0.02, 0.05, 0.10)
TOKENS = 16
MOST_FALSE_ALARMS = 0.05
POWER_OF = "generation_tps"


DESIGNS = {"margin 5 %": Design(margin=0.05), "margin 1 %": Design(margin=0.01)}


def campaign(home: Path, number: int, rng: np.random.Generator, noise: Noise, slower: float, n: int) -> CampaignRecord:
    """Write one campaign and read it back."""
    folder = build_campaign(home, [Cell(runner=str(number))], number=number, repetitions=n, warmups=0)
    found = read_campaign(folder)
    work, load = (np.exp(session(rng, noise, n)) * (1 + slower) for _ in range(2))
    for trial, working, loading in zip(found.cells[0].repetitions, work, load, strict=True):
        gaps = tuple(round(20 * MS * working * factor) for factor in np.exp(rng.normal(0, 0.02, TOKENS - 1)))
        turn = Turn(prefill_ns=round(100 * MS * working), gaps_ns=gaps, tokenize_ns=round(MS * working))
        truth = Trial(conversations=[[turn]], load_ns=round(400 * MS * loading))
        (trial.folder / record.EVENTS).write_bytes(b"".join(as_lines(events(truth))))
    return read_campaign(folder)


def decisions(first: CampaignRecord, second: CampaignRecord, design: Design) -> dict[str, ReplayDecision]:
    """The verdict on each judged metric."""
    (cell,) = compare(first, second, design, once=True).cells
    return {metric.metric: metric.decision for metric in cell.metrics if metric.decision is not None}


def operate(cv: float, difference: float, campaigns: int, n: int, seed: int = 1) -> Mapping[str, Counter[str]]:
    """Per design, in how many pairs of campaigns what was said."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in DESIGNS}
    for index in range(campaigns):
        rng = np.random.default_rng([seed, index, round(cv * 1e4), round(difference * 1e4)])
        with tempfile.TemporaryDirectory(prefix="false-alarms-") as home:
            pair = [campaign(Path(home), i, rng, Noise(cv), slower, n) for i, slower in enumerate((0.0, difference))]
            for name, design in DESIGNS.items():
                found = decisions(pair[0], pair[1], replace(design, seed=index))
                one = found[POWER_OF]
                counts[name][one.verdict] += 1
                counts[name]["any"] += any(decision.verdict is ReplayVerdict.differs for decision in found.values())
                counts[name]["excludes 1"] += not one.low <= 1 <= one.high
    return counts


def main() -> int:
    """Print the table; 1 where there are more false alarms than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--cv", type=float, nargs="*", default=CVS)
    parser.add_argument("--difference", type=float, nargs="*", default=DIFFERENCES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the table as JSON as well")
    arguments = parser.parse_args()
    rows, alarms, began = list[dict[str, object]](), list[str](), time.perf_counter()
    print(f"{arguments.campaigns} pairs of campaigns a row, {arguments.repetitions} repetitions each\n")
    said = [*ReplayVerdict, "any", "excludes 1"]
    print(
        f"| CV % | difference % | design | {' | '.join(f'{name} %' for name in said[:3])} | any DIFFERS % | excludes 1 % |"
    )
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for cv in arguments.cv:
        for difference in arguments.difference:
            table = operate(cv, difference, arguments.campaigns, arguments.repetitions, arguments.seed)
            for name, counts in table.items():
                shares = {key: counts[key] / arguments.campaigns for key in said}
                cells = " | ".join(f"{100 * share:.1f}" for share in shares.values())
                print(f"| {100 * cv:g} | {100 * difference:g} | {name} | {cells} |", flush=True)
                rows.append({"cv": cv, "difference": difference, "design": name, **shares})
                if difference == 0 and shares["any"] > MOST_FALSE_ALARMS:
                    alarms.append(f"{name}, CV {cv:.0%}: {shares['any']:.1%} false alarms")
    print(f"\n{time.perf_counter() - began:.0f} s")
    print("\n".join(alarms))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    what = f"comparisons: cases with more than {MOST_FALSE_ALARMS:.0%} false alarms"
    return finish([figure(what, [len(alarms)], "cases", at_most=0)])


if __name__ == "__main__":
    sys.exit(main())
