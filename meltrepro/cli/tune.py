"""`meltrepro tune`: find the threads, batch and options with which a cell does best, and write a manifest with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    OnlyOption,
    QuietOption,
    SpecArgument,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.json_output import print_json
from meltrepro.cli.terminal import plain_table, result_console, say, typed
from meltrepro.cli.tune_documents import SettingDocument, TuneDocument, TunePlanDocument
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.stats.halving import Setting, Tried

_ORDER = ("best", "equal", "worse", "half", "out")
_FATES = {
    "best": "best",
    "equal": "not told apart from the best",
    "worse": "worse than the best of its round",
    "half": "not in the better half of its round",
}


def command(
    spec: SpecArgument,
    metric: Annotated[str, typer.Option("--for", metavar="METRIC", help="What is to be best: generation_tps.")],
    within: Annotated[
        list[str],
        typer.Option("--within", metavar="METRIC=VALUE", help="A limit, e.g. memory=1GB.", show_default=False),
    ] = [],
    over: Annotated[
        list[str],
        typer.Option(
            "--over", metavar="KEY=VALUE,VALUE", help="A further key to search, with its values.", show_default=False
        ),
    ] = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    most: Annotated[int, typer.Option("--most", min=1, help="Most trials of the whole search.")] = 100,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The manifest to write; NAME.tuned.yaml beside SPEC if absent."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Measure again what has been measured.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be searched; run nothing.")] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the rounds to MLflow.")] = True,
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Find the threads, batch and options with which one cell of a manifest does best.

    Searched are options that the manifest gives as lists, threads and batch where it names none, and what --over names.
    Each round is a campaign: all settings with few repetitions, then the better half with twice as many. Interrupt it
    whenever you like; the same command goes on.
    """
    wait_s = patience(wait, wait_at_most)
    planned = workflow.plan_tuning(
        spec, metric, within=within, over=over, only=only, most=most, output=output, force=force
    )
    if json and dry_run:
        print_json("tune-plan", _plan(planned))
        return
    if not json:
        for line in _told(planned):
            typer.echo(line, err=not dry_run)
    if dry_run:
        return
    with console(quiet=quiet or json) as sink:
        tuned = workflow.tune(planned, engine=engine, new=new, track=track, wait_s=wait_s, sink=sink)
    if json:
        print_json("tune", _document(tuned))
    else:
        _show(tuned)


def _told(planned: workflow.TuningPlan) -> Iterator[str]:
    yield f"tuning {planned.cell} for {planned.metric.name} ({planned.metric.unit}, {planned.metric.better} is better)"
    for key in planned.keys:
        yield f"  {key.name}: {', '.join(map(str, key.values))}"
    how = "all combinations" if planned.whole else "one key after the other, as all combinations take too many trials"
    yield f"{how}; at most {counted(planned.trials, 'trial')}; how long that takes is said after the first round"


def _in_order(tuned: workflow.Tuned) -> list[tuple[Setting, Tried]]:
    """The best first; of the same fate those that came further, and were better."""
    from statistics import median

    sign = -1 if tuned.plan.metric.better == "higher" else 1

    def key(item: tuple[Setting, Tried]) -> tuple[Any, ...]:
        values = item[1].values
        return _ORDER.index(item[1].fate), -item[1].round, sign * median(values) if values else 0, item[0]

    return sorted(tuned.tried.items(), key=key)


def _show(tuned: workflow.Tuned) -> None:
    from meltrepro.report.values import number
    from meltrepro.stats.summary import summarize

    out, planned = result_console(), tuned.plan
    names = [str(key.path[-1]) for key in planned.keys]
    if len({*names}) < len(names):
        names = [key.name for key in planned.keys]
    table = plain_table(
        *names, "what became of it", "round", planned.metric.unit, "interval", "n", texts=len(names) + 1
    )
    for setting, each in _in_order(tuned):
        known = summarize(each.values) if each.values else None
        figures = (number(known.median), f"{number(known.low)}–{number(known.high)}") if known else ("", "")
        values = [str(value) for value in planned.values(setting).values()]
        fate = f"out: {each.why_out}" if each.why_out else _FATES[each.fate]
        table.add_row(*values, fate, str(each.round or ""), *figures, str(len(each.values) or ""))
    out.print(table)
    out.print()
    best = ", ".join(f"{name}={value}" for name, value in planned.values(tuned.best).items())
    say(out, f"best for {planned.metric.name}: {best}{_against_own(tuned)}")
    if any(each.fate == "equal" for each in tuned.tried.values()):
        say(
            out,
            "others cannot be told apart from it: taken is what has fewer threads, is the manifest's own, or needs less memory",
        )
    say(out, f"manifest: {planned.output}; next: {typed('run', planned.output)}")


def _against_own(tuned: workflow.Tuned) -> str:
    own = tuned.tried[(0,) * len(tuned.plan.keys)]
    if not any(tuned.best):
        return ", which is the manifest's own setting"
    if tuned.gain is None:
        return f"; the manifest's own is out: {own.why_out}" if own.why_out else ""
    gain, low, high = (100 * (value - 1) for value in (tuned.gain.ratio, tuned.gain.low, tuned.gain.high))
    return f", {gain:+.1f} % ({low:+.1f} to {high:+.1f}) on the manifest's own"


def _plan(planned: workflow.TuningPlan) -> TunePlanDocument:
    return TunePlanDocument(
        cell=str(planned.cell),
        metric=planned.metric.name,
        within=dict(planned.limits),
        keys={key.name: list(key.values) for key in planned.keys},
        search="all" if planned.whole else "one-by-one",
        trials=planned.trials,
    )


def _document(tuned: workflow.Tuned) -> TuneDocument:
    from meltrepro.stats.summary import summarize

    settings = []
    for setting, each in _in_order(tuned):
        known = summarize(each.values) if each.values else None
        figures: Mapping[str, Any] = {
            name: getattr(known, name) if known else None for name in ("median", "low", "high")
        }
        more = {"fate": each.fate.value, "why_out": each.why_out, "round": each.round, "n": len(each.values)}
        settings.append(SettingDocument(values=tuned.plan.values(setting), **more, **figures))
    gain = None if tuned.gain is None else [tuned.gain.ratio, tuned.gain.low, tuned.gain.high]
    return TuneDocument(
        plan=_plan(tuned.plan),
        settings=settings,
        gain=gain,
        path=tuned.plan.output,
        campaigns=[folder.name for folder in tuned.campaigns],
    )
