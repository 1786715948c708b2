"""The stream of steps for people: a live view on a terminal, plain lines everywhere else. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from meltrepro.cli.terminal import rich_console, say
from meltrepro.steps import Sink, Step
from meltrepro.words import counted, plural, readable, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_TRIAL = "trial"
_REDRAW_NS = 100_000_000
_BAR = 10
"""Cells that the bar of a moving line takes."""
_FACTS = 56
"""Cells that are kept for what stands beside a name, as in `12/12, 2:43 min left, turn 1, 32 tokens, generating, 9 s`."""
_WORTH_A_LINE_BYTES = 1e6
_SHORT_S = 1.0
"""Steps that took less are not worth a line on a terminal."""


@contextmanager
def console(*, quiet: bool = False, output: Console | None = None) -> Iterator[Sink]:
    """A sink that shows steps until the block ends; `quiet` shows nothing but whom one waits for, which may take hours."""
    if quiet:
        yield _waiting
        return
    out = output or rich_console(stderr=True)
    if out.is_interactive:
        with _Live(out) as live:
            yield live
    else:
        yield _Plain(out)


def _waiting(step: Step) -> None:
    if step.name == "wait":
        print(describe(step), file=sys.stderr)


def describe(step: Step) -> str | None:
    """A step as one line without control characters; `None` for steps that say nothing to people."""
    line = _describe(step)
    return None if line is None else visible(line)


def _describe(step: Step) -> str | None:
    if step.name in _LINES:
        return _LINES[step.name](step)
    detail = step.detail
    what = f"{step.name} {step.subject}".strip()
    match step.name, step.phase:
        case "gate", "begin":
            return f"{what}: waiting: {detail.get('waiting')}"
        case "gate", "end":
            return f"{what}: open"
        case "deploy", "end":
            return f"{what}: {amount(step)}" if (step.total or 0) >= _WORTH_A_LINE_BYTES else None
        case "restore", "fail":
            return (
                f"the settings of {step.subject} are not put back: {detail.get('error')}; later: {detail.get('next')}"
            )
        case "absent", "note" if instead := detail.get("instead"):
            return f"{detail.get('error')}; goes on with {instead}"
        case "absent", "note":
            return f"{detail.get('error')}; its cells are skipped"
        case "busy", "note":
            fewer = f"--set targets.{step.subject}.threads=1 needs less, " if detail.get("threads", 0) > 1 else ""
            return (
                f"{step.subject}: others keep {detail.get('busy', 0):.1f} of {detail.get('cores')} CPUs busy; trials of"
                f" {counted(detail.get('threads', 0), 'thread')} will wait for a CPU: far slower, and INVALID (cpu-pressure) if that is long;"
                f" {fewer}--set protocol.gates.busy_cores=0.5 waits until it is quiet"
            )
        case "lock", "note":
            return f"{step.subject}: changed entries: {detail.get('changed')}; --locked changes none"
        case "artifact", "note" if detail.get("reused"):
            return f"reused {step.subject}"
        case _, "note":
            more = ", ".join(f"{key} {value}" for key, value in detail.items())
            return f"{what}: {more}" if more else what
    ends = {"begin": " ...", "end": ": done", "fail": f": failed: {detail.get('error')}"}
    return what + ends[step.phase] if step.phase in ends else None


def _of_campaign(step: Step) -> str | None:
    detail = step.detail
    match step.phase:
        case "begin":
            again = "going on with" if detail.get("resumed") else "campaign"
            return f"{again} {step.subject}: {counted(step.total or 0, 'trial')} in {detail.get('folder')}"
        case "end":
            return f"campaign {step.subject}: {counted(detail.get('ok', 0), 'trial')} ok, {detail.get('failed')} failed"
        case "fail":
            return f"campaign {step.subject} stopped: {detail.get('error')}"
    return None


def _of_trial(step: Step) -> str | None:
    detail, what = step.detail, f"trial {_number(step)} {step.subject}"
    match step.phase:
        case "begin":
            return f"{what} begins"
        case "end":
            return f"{what}: {_speed(step)}"
        case "fail" if detail.get("discarded"):
            return f"{what}: stopped, nothing of it is kept"
        case "fail":
            return f"{what}: failed: {detail.get('error')}{'; trying again' if detail.get('retry') else ''}"
    return None


def _of_waiting(step: Step) -> str | None:
    """Whom a campaign waits for, and that it goes on; why it does not is the error's to say."""
    lines = {"begin": f"{step.subject}: waiting for {step.detail.get('for')}", "end": f"{step.subject} is free"}
    return lines.get(step.phase)


def _of_tuning(step: Step) -> str | None:
    """What the next round of a search measures."""
    detail = step.detail
    if "campaign" in detail:
        return f"measured already: {detail['campaign']}"
    left = detail.get("left_s")
    rest = "" if left is None else f", about {duration(left)} at most"
    trials = f"at most {(step.total or 0) - (step.done or 0):.0f} trials are left{rest}"
    settings = counted(detail.get("settings", 0), "setting")
    return f"tuning, round {step.subject}: {settings}, {counted(detail.get('repetitions', 0), 'repetition')} each; {trials}"


def _of_calibrating(step: Step) -> str:
    """Which session begins."""
    if step.unit == "s":
        return f"calibrating: one trial without a pause, of some {step.total:.0f} s"
    return f"calibrating: session {(step.done or 0) + 1:.0f} of {step.total:.0f}"


def _of_bisecting(step: Step) -> str:
    """Which release is tried."""
    left = (step.total or 0) - (step.done or 0)
    return f"bisect: trying {step.subject}; at most {counted(left, 'release')} to try"


def _of_study(step: Step) -> str | None:
    """What becomes of the manifests of a study, and of the models that they needed."""
    detail = step.detail
    match step.name, step.phase:
        case "manifest", "begin":
            left = detail.get("left_s")
            rest = "" if left is None else f", about {duration(left)} of measuring left"
            return f"study {detail.get('study')}: {(step.done or 0) + 1:.0f} of {step.total:.0f}, {step.subject}{rest}"
        case "manifest", "note":
            return f"measured already: {detail.get('campaign')}"
        case "manifest", "fail":
            return f"left out: {detail.get('error')}"
        case "manifest", "end" if failed := detail.get("failed"):
            return f"{counted(failed, 'trial')} failed; the report says which"
        case "drop", "end":
            return f"dropped models that are measured: {readable(step.done or 0)}"
        case "drop", "note":
            kept = detail.get("kept", 0)
            return f"{counted(kept, 'model')} {plural(kept, 'stays', 'stay')}: named by locks of other manifests"
        case "drop", "fail":
            return f"no models are dropped: {detail.get('error')}"
    return None


_LINES: dict[str, Callable[[Step], str | None]] = {
    "campaign": _of_campaign,
    "wait": _of_waiting,
    _TRIAL: _of_trial,
    "manifest": _of_study,
    "tuning": _of_tuning,
    "calibrating": _of_calibrating,
    "bisect": _of_bisecting,
    "drop": _of_study,
}
"""What is said of steps that have words of their own."""


class Pace:
    """How long the trials that are left will take, by those that this process has run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._first = 0.0

    def begin(self, done: float) -> None:
        """Trial number `done` begins."""
        if self._since is None:
            self._since, self._first = self._clock(), done

    def left_s(self, done: float, total: float) -> float | None:
        """Seconds left after `done` trials; `None` before the first has ended."""
        ran = done - self._first
        if self._since is None or ran <= 0:
            return None
        return (self._clock() - self._since) / ran * (total - done)


class _Plain:
    """One line a step, nothing that moves."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._now_s = 0.0
        self._pace = Pace(lambda: self._now_s)

    def __call__(self, step: Step) -> None:
        self._now_s = step.monotonic_ns / 1e9
        line = describe(step)
        if step.name == _TRIAL and step.done is not None and step.total is not None:
            if step.phase == "begin":
                self._pace.begin(step.done)
            left = self._pace.left_s(step.done + 1, step.total)
            if line and left and step.phase == "end":
                line += f", {duration(left)} left"
        if line:
            say(self._out, line)


class _Live:
    """What is going on as moving lines, what is done as lasting ones.

    It draws when a step arrives and never by itself: on the host a redrawing thread would compete with the runner. While
    nothing is going on it is not there, so that others may print.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._progress = self._anew()
        self._drawn_ns = 0
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._now_s = 0.0
        self._pace = Pace(lambda: self._now_s)
        self._left_s: float | None = None
        """When the trial that runs began."""
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, step: Step) -> None:
        self._now_s = step.monotonic_ns / 1e9
        if step.name == _TRIAL:
            self._trial(step)
        elif step.name in _LINES:  # they have no moving line
            if step.name == "campaign" and step.phase in ("end", "fail"):  # its last trials may be left out
                self._forget((_TRIAL, ""))
            self._lasting(step)
        else:
            self._other(step)
        if not self._tasks:
            self._progress.stop()
            self._progress = self._anew()  # one that was stopped would draw over what was printed since
            return
        self._progress.start()
        if step.phase != "progress" or step.monotonic_ns - self._drawn_ns >= _REDRAW_NS:
            self._drawn_ns = step.monotonic_ns
            self._progress.refresh()

    def _anew(self) -> Progress:
        from rich.progress import BarColumn, Progress, ProgressColumn, Task
        from rich.text import Text

        out = self._out

        class Words(ProgressColumn):
            def render(self, task: Task) -> Text:
                text = row(task.description, task.fields["facts"], out.width - _BAR - 1)
                return Text(text, no_wrap=True, overflow="ellipsis")

        return Progress(
            BarColumn(_BAR, complete_style="green"), Words(), console=out, transient=True, auto_refresh=False
        )

    def _other(self, step: Step) -> None:
        key = (step.name, step.subject)
        match step.phase:
            case "begin":
                self._begun[key] = step.monotonic_ns
                self._tasks[key] = self._progress.add_task(
                    f"{step.name} {step.subject}", total=None, facts=[info(step)]
                )
            case "progress":
                if key not in self._tasks:
                    self._tasks[key] = self._progress.add_task(f"{step.name} {step.subject}", total=None, facts=[])
                self._progress.update(self._tasks[key], completed=step.done, total=step.total, facts=[info(step)])
            case "end":
                self._forget(key)
                if (step.monotonic_ns - self._begun.pop(key, step.monotonic_ns)) / 1e9 >= _SHORT_S:
                    self._lasting(step)
            case "fail" | "note":
                if step.phase == "fail":
                    self._forget(key)
                self._lasting(step)

    def _trial(self, step: Step) -> None:
        key = (_TRIAL, "")
        done, total = step.done or 0, step.total or 0
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task("", total=total, facts=[])
        if step.phase in ("begin", "progress"):
            self._pace.begin(done)
            if step.phase == "begin":
                self._left_s = self._pace.left_s(done, total)
            left = max((self._left_s or 0) - step.detail.get("elapsed_s", 0), 0)
            facts = [
                f"{done + 1:.0f}/{total:.0f}",
                f"{duration(left)} left" if left else "",
                *(within(step) or [self._last]),
            ]
            self._progress.update(self._tasks[key], description=step.subject, completed=done, facts=facts)
            return
        if step.phase == "end":
            self._last = _speed(step)
        if step.phase == "fail":
            self._lasting(step)
        self._progress.update(self._tasks[key], completed=done + 1)
        if done + 1 >= total or step.detail.get("discarded"):
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._progress.remove_task(task)

    def _lasting(self, step: Step) -> None:
        line = describe(step)
        if line:
            say(self._out, line)


def amount(step: Step) -> str:
    """How far a step is: `12.3 MB of 98.2 MB`, `17/138 steps`."""
    if step.done is None:
        return ""
    if step.unit == "bytes":
        return readable(step.done) + (f" of {readable(step.total)}" if step.total else "")
    return f"{step.done:.0f}" + (f"/{step.total:.0f}" if step.total else "") + f" {step.unit}".rstrip()


def info(step: Step) -> str:
    """What a moving line says beside its bar: how far a step is, or what it waits for."""
    waiting = step.detail.get("waiting")
    return visible(waiting) if isinstance(waiting, str) else amount(step)


def within(step: Step) -> list[str]:
    """How far a trial is: `turn 2`, `37 tokens`, `generating`, `12 s`."""
    detail = step.detail
    parts = [f"turn {detail['turn']}"] if "turn" in detail else []
    parts += [counted(detail["tokens"], "token")] if "tokens" in detail else []
    parts += [detail["phase"]] if "phase" in detail else []
    return [*parts, *([duration(detail["elapsed_s"])] if "elapsed_s" in detail else [])]


def row(name: str, facts: Sequence[str], width: int) -> str:
    """One line of at most `width` cells: where there is no room the last facts go.

    How much of a name is shown depends on the width alone, so that it stays as it is while facts get longer and shorter.
    """
    from rich.cells import cell_len

    said = [" ".join(visible(fact).split()) for fact in facts if fact]
    names = _shorter(" ".join(visible(name).split()))
    stable = next((each for each in names if cell_len(each) + 2 + _FACTS <= width), names[-1])
    shown = [", ".join(said[:count]) for count in range(len(said), 0, -1)] or [""]
    lines = [f"{stable}  {fact}".rstrip() for fact in shown] + shown
    return next((line for line in lines if cell_len(line) <= width), None) or _cut(f"{stable}  {shown[-1]}", width)


def _shorter(name: str) -> list[str]:
    """A name and what is left of it without its last parts: `m/q4_0/engine/host/chat r000`, `m/q4_0/… r000`."""
    cell, _, rest = name.rpartition(" ")
    parts = cell.split("/")
    return [name, *("/".join([*parts[:count], f"… {rest}"]) for count in range(len(parts) - 1, 1, -1))]


def _cut(line: str, width: int) -> str:
    """As many whole words of a line as there is room for; of the first one at least what fits."""
    from rich.cells import cell_len, set_cell_size

    words = line.split(" ")
    while len(words) > 1 and cell_len(" ".join(words)) + 1 > width:
        words.pop()
    text = " ".join(words).rstrip(" ,:")
    return f"{text}…" if cell_len(text) < width else set_cell_size(text, max(width, 1))


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3:07 min`, `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _number(step: Step) -> str:
    return f"{(step.done or 0) + 1:.0f}/{step.total or 0:.0f}"


def _speed(step: Step) -> str:
    speed, took = step.detail.get("generation_tps"), step.detail.get("duration_s")
    if not isinstance(speed, float):
        return duration(took) if isinstance(took, float) else "done"
    shown = [f"{speed:.1f} tok/s"]
    for name, unit in (("temperature_max_c", "°C"), ("generation_power_w", "W")):
        value = step.detail.get(name)
        if isinstance(value, float):
            shown.append(f"{value:.1f} {unit}")
    return ", ".join(shown)
