"""How often does a live replay err? Recordings replayed as they are, and with a binary that is slower by a planted share.

    .venv/bin/python -m tests.benchmarks.live_replay FOLDER [--sessions 5] [--replays 4] [--noise] [--delay 0.05] [--margin 0.02] [--maximum 60]

Campaigns of a cell of the quickstart's model are recorded, a session each; then each is replayed in turns: as it is, and with an
engine that waits in each decoding for the given share of that decoding's time. With --noise another program uses a core and
the memory's bus in bursts while all of it runs. Prints how often each verdict fell, by metric, and how long a replay took.
Promise: of generation_tps as it is at most 1 of 20 DIFFERS, of the slower one at least 19 of 20 do. What was done stays in FOLDER:
a run goes on where another ended, on another day too, and more sessions or replays are added to those that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from meltrepro import settings
from meltrepro.build.model import Artifact
from meltrepro.build.pipeline import Builder
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.plan.model import BundleNode
from meltrepro.record.campaign import LOCK, MANIFEST
from meltrepro.record.reader import campaign_folders
from meltrepro.replay.control import with_controls
from meltrepro.replay.replay import Replayed, recorded_requests, replay
from meltrepro.settings import Settings
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.store.archive import pack_tree
from meltrepro.workflow.campaigns import prepare
from meltrepro.workflow.session import Session, open_session
from tests.benchmarks._llama import ROOT
from tests.benchmarks._table import figure, finish

CHOSEN = ("models.smollm2-135m.quantizations=[q4_0]", "protocol.repetitions=10", "targets.host.threads=1")
METRIC = "generation_tps"
NOISE = """
import random, time
import numpy
block = numpy.zeros(16 << 20)
while True:
    until = time.monotonic() + random.expovariate(1 / 2)
    while time.monotonic() < until:
        block += 1
    time.sleep(random.expovariate(1 / 3))
"""
"""A core and the memory's bus, in bursts of two seconds on average, with three between them."""


def main() -> int:
    """Print the tables; 1 where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--replays", type=int, default=4)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--margin", type=float, default=0.02)
    parser.add_argument("--maximum", type=int, default=60)
    options = parser.parse_args()
    answers = options.folder / ("noise.jsonl" if options.noise else "quiet.jsonl")
    kinds = {"as it is": 0.0, f"slower by {options.delay:.0%}": options.delay}
    with _noise(options.noise):
        sessions = [_session_of(options.folder / f"session-{number}") for number in range(options.sessions)]
        for number in range(options.replays):
            for session, (recorded, here) in enumerate(sessions):
                for kind, delay in kinds.items():
                    which = {"session": session, "replay": number, "kind": kind}
                    if not any(which.items() <= done.items() for done in _read(answers)):
                        said = _replayed(recorded, here, delay, options.margin, options.maximum)
                        with answers.open("a") as file:
                            print(json.dumps({**which, **said}), file=file)
    done = _read(answers)
    rows = []
    for kind, wanted in zip(kinds, (ReplayVerdict.differs, ReplayVerdict.reproduced), strict=True):
        of_kind = [each for each in done if each["kind"] == kind]
        print(f"{kind}: {len(of_kind)} replays, margin {options.margin:.0%}, at most {options.maximum} trials an arm")
        for metric in of_kind[0]["verdicts"]:
            counts = Counter(each["verdicts"].get(metric) for each in of_kind)
            print(f"  {metric:20} " + "   ".join(f"{verdict} {counts[verdict]:3}" for verdict in ReplayVerdict))
        wrong = sum(
            each["verdicts"].get(METRIC)
            in ({wanted} if not kinds[kind] else {wanted, ReplayVerdict.inconclusive, None})
            for each in of_kind
        )
        rows += [
            figure(f"{METRIC} {kind}: wrong", [100 * wrong / len(of_kind)], "%", at_most=5),
            figure(f"time of a replay {kind}", [each["seconds"] for each in of_kind], "s", at_most=600),
        ]
        print(f"  trials of an arm: {statistics.median(each['trials'] for each in of_kind):.0f}, half of them")
    return finish(rows)


def _read(answers: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.read_text().splitlines()] if answers.is_file() else []


@contextmanager
def _noise(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", NOISE]) as process:
        try:
            yield
        finally:
            process.kill()


def _session_of(folder: Path) -> tuple[CampaignRecord, Settings]:
    here = replace(settings.load(), home=(folder / "home").resolve())
    if not campaign_folders(here.records):
        shutil.copytree(ROOT / "specs", folder / "specs", dirs_exist_ok=True)
        command = [sys.executable, "-m", "meltrepro", "run", str(folder / "specs" / "quickstart.yaml")]
        command += ["--no-track", "--quiet", *(f"--set={change}" for change in CHOSEN)]
        done = subprocess.run(command, env={**os.environ, "MELTREPRO_HOME": str(here.home)}, check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
    return read_campaign(campaign_folders(here.records)[0]), here


def _replayed(recorded: CampaignRecord, here: Settings, delay: float, margin: float, maximum: int) -> dict[str, Any]:
    began = time.monotonic()
    answer = _replay(recorded, here, delay, margin, maximum)
    cell = answer.comparison.cells[0]
    return {
        "verdict": answer.verdict,
        "proven": cell.proven,
        "verdicts": {each.metric: each.decision.verdict for each in cell.metrics if each.decision is not None},
        "ratios": {each.metric: each.second / each.control for each in cell.metrics if each.control},
        "reasons": answer.reasons,
        "trials": max(len(each.repetitions) for each in read_campaign(answer.folder).cells),
        "seconds": round(time.monotonic() - began, 1),
    }


def _replay(recorded: CampaignRecord, here: Settings, delay: float, margin: float, maximum: int) -> Replayed:
    overrides = [f"replay.margin={margin}", f"replay.maximum={maximum}"]
    with _session(recorded, overrides) as session:
        declared = session.loaded.manifest.replay
        session = session.repeated(declared.maximum)
        requests = recorded_requests(recorded)
        setup = prepare(session, (), tracked=False, requests=requests)
        if delay:
            (node,) = (node for node in session.plan.bundles if node.purpose == "run")
            slow = _slowed(session, node, setup.artifacts[node.id], delay)
            setup = replace(setup, artifacts={**setup.artifacts, node.id: slow})
        setup = with_controls(setup, recorded, session.tools.store, declared)
        return replay(recorded, setup, declared, here, session.tools.sink)


@contextmanager
def _session(recorded: CampaignRecord, overrides: list[str]) -> Iterator[Session]:
    with open_session(
        recorded.folder / MANIFEST,
        overrides,
        (),
        engine="docker",
        locked=True,
        lock_file=recorded.folder / LOCK,
    ) as session:
        yield session


def _slowed(session: Session, node: BundleNode, original: Artifact, delay: float) -> Artifact:
    """The bundle with a runner that waits after each step; built once."""
    tools = session.tools
    known = tools.store.get_ref("benchmark-delay", f"{original.digest}-{delay}")
    if known is None or not tools.store.has(known["digest"]):
        recipe = Builder(tools).recipe(node)
        name = "engine/engine.cpp"
        source = recipe.files[name].decode()
        decoding = "        batch.logits = each;\n        const int32_t status = llama_decode(context, batch);\n"
        changes = {
            '#include "failure.h"\n': '#include "clock.h"\n#include "failure.h"\n',
            decoding: "        const int64_t began = monotonic_ns();\n"
            f"{decoding}"
            "        const int64_t now = monotonic_ns();\n"
            f"        const auto until = now + static_cast<int64_t>({delay} * static_cast<double>(now - began));\n"
            "        while (monotonic_ns() < until) {\n        }\n",
        }
        for old, new in changes.items():
            if source.count(old) != 1:
                sys.exit(f"{name} has changed: {old.strip()!r} is not there once; mend this benchmark")
            source = source.replace(old, new)
        recipe = replace(recipe, name=f"{recipe.name}, delayed", files={**recipe.files, name: source.encode()})
        with tools.store.scratch() as scratch:
            out = scratch / "out"
            out.mkdir()
            tools.engine().build(recipe, out, scratch / "log", tools.sink)
            pack_tree(out, scratch / "tar", prefix="bundle")
            known = {"digest": tools.store.put_file(scratch / "tar", move=True)}
        tools.store.put_ref("benchmark-delay", f"{original.digest}-{delay}", known)
    digest = known["digest"]
    path = tools.store.unpack(digest) / "bundle"
    return replace(original, digest=digest, file=tools.store.path(digest), path=path)


if __name__ == "__main__":
    sys.exit(main())
