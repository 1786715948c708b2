"""How often does a live replay err? The same campaign replayed as it is, and with a binary that has a planted delay.

    .venv/bin/python -m tests.benchmarks.live_replay [--replays 20] [--delay 0.10] [--margin 0.05] [--maximum 30]

One campaign of the quickstart's model is recorded and replayed in turns: with its own artifacts, against the recorded
values; and with a runner that waits in each decoding step for the given share of the step's time, beside the recorded
one as a control. Prints how often each verdict fell, by metric. Promise: the first kind gives DIFFERS and the second
REPRODUCED for generation_tps in at most 1 of 20. Run it on an idle machine: 20 replays of each kind take about an hour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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

CHOSEN = (
    *("models.smollm2-135m.quantizations=[q4_0]", "workloads.chat.first=1", "workloads.chat.turns=1"),
    *("workloads.chat.max_tokens=32", "protocol.repetitions=10", "targets.host.threads=1"),
)


def main() -> int:
    """Print the table; 1 where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.10)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--maximum", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        here = replace(settings.load(), home=Path(name) / "home")
        recorded = _record(Path(name), here)
        verdicts: dict[str, Counter[str]] = {}
        trials: Counter[str] = Counter()
        for _ in range(options.replays):
            for kind, delay in (("as it is", 0.0), (f"delay of {options.delay:.0%}", options.delay)):
                answer = _replay(recorded, here, delay, options.margin, options.maximum)
                trials[kind] += sum(len(cell.repetitions) for cell in read_campaign(answer.folder).cells)
                for metric in answer.comparison.cells[0].metrics:
                    if metric.decision is not None:
                        verdicts.setdefault(f"{kind:14} {metric.metric}", Counter())[metric.decision.verdict] += 1
    print(
        f"{options.replays} replays of each kind, margin {options.margin:.0%}, at most {options.maximum} trials per arm"
    )
    for row, counts in verdicts.items():
        print(f"{row:36} " + "   ".join(f"{verdict} {counts[verdict]:3}" for verdict in ReplayVerdict))
    for kind, count in trials.items():
        print(f"{kind}: {count / options.replays:.0f} trials a replay")
    (first, wrong), (second, missed) = [
        (counts, counts[verdict])
        for row, counts in verdicts.items()
        for verdict in [ReplayVerdict.differs if row.startswith("as it is") else ReplayVerdict.reproduced]
        if row.endswith("generation_tps")
    ]
    return finish(
        [
            figure("live replays of the same that DIFFER", [100 * wrong / first.total()], "%", at_most=5),
            figure("live replays of a delay REPRODUCED", [100 * missed / second.total()], "%", at_most=5),
        ]
    )


def _record(folder: Path, here: Settings) -> CampaignRecord:
    shutil.copytree(ROOT / "specs", folder / "specs")
    command = [
        sys.executable,
        "-m",
        "meltrepro",
        "run",
        str(folder / "specs" / "quickstart.yaml"),
        "--no-track",
        "--quiet",
    ]
    environment = {**os.environ, "MELTREPRO_HOME": str(here.home)}
    done = subprocess.run([*command, *(f"--set={change}" for change in CHOSEN)], env=environment, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return read_campaign(campaign_folders(here.records)[0])


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
        name = "runner/framework.cpp"
        source = recipe.files[name].decode()
        changes = {
            '#include "failure.h"\n': '#include "clock.h"\n#include "failure.h"\n',
            "    std::vector<Token> copy = tokens;\n": "    const int64_t began = monotonic_ns();\n"
            "    std::vector<Token> copy = tokens;\n",
            "    synchronize(context);\n}\n": "    synchronize(context);\n"
            "    const int64_t now = monotonic_ns();\n"
            f"    const auto until = now + static_cast<int64_t>({delay} * static_cast<double>(now - began));\n"
            "    while (monotonic_ns() < until) {\n    }\n}\n",
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
