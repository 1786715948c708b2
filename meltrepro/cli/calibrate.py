"""`meltrepro calibrate`: find out how steady a device is, and which differences can be shown on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    OnlyOption,
    QuietOption,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.json_output import print_json
from meltrepro.cli.terminal import plain_table, result_console, say
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.stats.sessions import Spread

_REPETITIONS = (3, 5, 10, 30)


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A device as `meltrepro devices` shows it, or host; with --spec a target of that manifest.",
        ),
    ] = "host",
    spec: Annotated[
        Path | None,
        typer.Option(help="Take the first cell of this manifest on the target as the work, not the quickstart's."),
    ] = None,
    only: OnlyOption = [],
    sessions: Annotated[int, typer.Option(min=4, max=60, help="Sessions of five trials each.")] = 6,
    endurance: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long the trial without a pause is; 0: none.")
    ] = 60,
    minutes: Annotated[
        float, typer.Option(min=0, help="Begin no session that would end later, after the fourth.")
    ] = 10,
    engine: EngineOption = "docker",
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Find out how much a device varies within a session and between sessions, and how long it keeps its first speed.

    Every later campaign on the device holds a copy: replays and comparisons then know how much two sessions may differ, and
    `protocol.repetitions: auto` how many repetitions a difference needs. Calibrate on several days; sessions add up.
    """
    wait_s = patience(wait, wait_at_most)
    with console(quiet=quiet or json) as sink:
        found = workflow.calibrate(
            target,
            spec=spec,
            only=only,
            sessions=sessions,
            endurance_s=endurance,
            minutes=minutes,
            engine=engine,
            wait_s=wait_s,
            sink=sink,
        )
    if json:
        print_json("calibrate", found.calibration)
    else:
        _show(found)


def _show(found: workflow.Calibrated) -> None:
    from meltrepro.measure.spreads import spreads

    out, known = result_console(), found.calibration
    say(
        out,
        f"{known.device}: {counted(found.added, 'session')} of {known.cell} in {found.seconds:.0f} s; known now: {known}",
    )
    table = plain_table(
        "metric", "trials", "sessions", *(f"n={n}" for n in _REPETITIONS), *(f"n={n} *" for n in _REPETITIONS), texts=1
    )
    for metric, spread in spreads(known):
        table.add_row(metric, _share(spread.within), _share(spread.between), *_differences(spread))
    out.print(table)
    say(out, "trials, sessions: coefficient of variation within a session and of the levels of sessions")
    say(
        out,
        "n: smallest difference that n repetitions a side show in four of five cases, in one campaign; *: in two campaigns",
    )
    for line in _remarks(found):
        say(out, line)
    say(out, f"kept in {found.path}; every later campaign on this device holds a copy")


def _differences(spread: Spread) -> Iterator[str]:
    for sessions in (False, True):
        for n in _REPETITIONS:
            smallest = spread.smallest(n, sessions=sessions)
            yield _share(smallest) if smallest is not None else "-"


def _remarks(found: workflow.Calibrated) -> Iterator[str]:
    from meltrepro.measure.spreads import drift_of, sampling_cost

    known = found.calibration
    moved = drift_of(known)
    if moved is not None and moved.change is not None:
        how = "drifted" if moved.established else "shows no drift beyond chance"
        yield f"generation_tps {how}: {moved.change:+.1%} from the first trial to the last"
    cost = sampling_cost(known)
    if cost is not None:
        low, high = cost.low - 1, cost.high - 1
        yield f"reading sensors: generation_tps {cost.ratio - 1:+.1%} ({low:+.1%} to {high:+.1%})"
    if known.pressure is not None:
        yield f"tasks waited for a CPU {known.pressure:.1%} of the time"
    long = known.endurance
    if long is not None:
        kept = long.steady_tps / long.burst_tps
        slower = "" if long.slower_after_s is None else f", slower than 95 % from {long.slower_after_s:.0f} s on"
        yield (
            f"without a pause: {long.burst_tps:.4g} tokens/s at first, {long.steady_tps:.4g} ({kept:.0%}) at the end of "
            f"{long.duration_s:.0f} s{slower}"
        )
    if not any("energy" in name for session in known.sessions for name in session.values):
        yield "no energy: the device shows none; a meter can (docs/meters.md)"


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"
