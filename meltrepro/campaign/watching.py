"""How far a trial is that runs, for people to see; what is measured must not notice.

A trial on this machine writes its events into its own folder. A look reads what is new there, once a second, and only where
the trial's threads leave a CPU free; where they do not, its age is told now and then. A device elsewhere is not asked: its trial is
as old as it is.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Tell = Callable[[Mapping[str, object]], None]
_EVERY_S = 1.0
_RARER = 10
"""So many times rarer is told how old a trial is that leaves no CPU free: a line that is drawn takes milliseconds."""
_KIND = re.compile(rb'^\{"e": ?"([a-z_]+)"', re.MULTILINE)
# Our runner writes what it has to tell when nothing is timed: of a turn only when it is over. So a phase that ends says what follows.
_PHASES = {
    b"load_begin": "loading",
    b"context": "ready",
    b"warmup_begin": "warming up",
    b"warmup_end": "answering",
    b"prefill_begin": "prefill",
    b"prefill_end": "generating",
    b"turn_end": "done",
}


@contextmanager
def watched(events: Path, tell: Tell, *, spare: bool, every_s: float = _EVERY_S) -> Iterator[None]:
    """While the block runs, `tell` how old the trial is, and of its events the turn, its tokens and the phase.

    Without a `spare` CPU a trial of this machine is not looked at, and its age is told a tenth as often.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_look, args=(events, tell, spare, every_s, ended), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _look(events: Path, tell: Tell, spare: bool, every_s: float, ended: threading.Event) -> None:
    since, at = time.monotonic(), 0
    seen: dict[str, object] = {}
    pause_s = every_s
    while not ended.wait(pause_s):
        if not spare:
            pause_s = every_s * (_RARER if events.exists() else 1)
        elif events.exists():
            try:
                with events.open("rb") as file:
                    file.seek(at)
                    new = file.read()
            except OSError:  # whoever reads the record will say what is wrong with it
                return
            new = new[: new.rfind(b"\n") + 1]
            at += len(new)
            seen = progress(seen, new)
        tell({"elapsed_s": time.monotonic() - since, **seen})


def progress(before: Mapping[str, object], lines: bytes) -> dict[str, object]:
    """What is known after these further lines of a trial's events: `turn` and `tokens` of it, counted from 1, and `phase`."""
    turn, tokens = int(str(before.get("turn", 0))), int(str(before.get("tokens", 0)))
    phase = before.get("phase")
    for kind in _KIND.findall(lines):
        if kind == b"turn_begin":
            turn, tokens = turn + 1, 0
        tokens += kind == b"token"
        phase = _PHASES.get(kind, phase)
    known = {"turn": turn or None, "tokens": tokens or None, "phase": phase}
    return {name: value for name, value in known.items() if value is not None}
