"""Bisection: which release or commit made a metric worse, by few builds, each measured beside the one that is known to be good."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.errors import BuildError, Inconclusive, ManifestError, RecordError, SourceError, UsageError
from meltrepro.manifest.axes import base
from meltrepro.manifest.base import Strict
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.sources import GitSource
from meltrepro.measure.metrics import directed
from meltrepro.plan.identity import digest_of
from meltrepro.plan.planner import selected
from meltrepro.record.ids import CellId
from meltrepro.replay.gate import Gate
from meltrepro.settings import Settings
from meltrepro.stats.bisection import Bisection, Side
from meltrepro.steps import Sink, Step, silent
from meltrepro.store.git import commits_between
from meltrepro.untrusted import parse, read_regular
from meltrepro.workflow.gating import gate
from meltrepro.workflow.manifests import read_manifest

GOOD, TRIED = "good", "tried"
"""What the two sides of each step are called."""
_MOST_BYTES = 1 << 20


class BisectStep(Strict):
    """One release that was tried."""

    release: str = Field(description="Or a commit.")
    side: Side
    ratio: float | None = Field(None, description="Over the good release; absent where it could not be tried.")
    low: float | None = None
    high: float | None = None
    sure: bool = Field(True, description="Whether the interval lies on one side of what parts good from bad.")
    campaign: str | None = None
    reason: str = ""


class BisectState(Strict):
    """What is kept of a search, so that the same command goes on."""

    v: Literal[1] = 1
    steps: dict[str, BisectStep] = Field(default_factory=dict, description="By release; the bad end too.")


@dataclass(frozen=True)
class Bisected:
    """A search that ended, or whose time was up."""

    metric: str
    releases: Sequence[str]
    """All of them, from the good one to the bad one."""
    steps: Sequence[BisectStep]
    """In the order in which they ran, the bad end first."""
    suspects: Sequence[str]
    """The first bad release; several, where some could not be tried or the time was up."""
    ended: bool
    """Whether everything was tried that can be."""
    path: Path
    """What is kept, so that the same command goes on."""


def bisect_releases(
    manifest: Path | str,
    good: str,
    bad: str,
    metric: str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    maximum: int = 60,
    minutes: float | None = None,
    engine: EngineName = "docker",
    new: bool = False,
    wait_s: float = 0.0,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Bisected:
    """Find the first release from `good` to `bad` on which a metric is worse; the first commit, where the framework's source is a
    repository on this machine, along the first parents of `bad`.

    `manifest` has one cell (of `only`). The bad end is tried first: it must be worse by the manifest's margin. Another release
    then counts as bad where its ratio to the good one lies beyond the geometric mean of 1 and that of the bad end. What cannot
    be built is left out. The same call goes on where one stopped, unless `new`; no step begins after `minutes`.

    Raises `UsageError`, `Inconclusive` where the bad end is not worse, and what `gate` raises.
    """
    settings = settings or settings_module.load()
    began = time.monotonic()
    loaded = read_manifest(Path(manifest), overrides)
    cell = _one_cell(loaded, only)
    name = base(cell.framework)
    options = cell.framework.removeprefix(name)
    releases = _releases(loaded, name, good, bad)
    good, bad = releases[0], releases[-1]
    path = settings.home / "bisects" / f"{_identity(loaded, cell, releases, metric)}.json"
    state = BisectState() if new else _load(path)
    lower_is_better = directed(metric, "--metric").better == "lower"

    def measured(release: str, margin: float) -> BisectStep:
        """A release beside the good one, in a campaign of both."""
        try:
            found = gate(
                manifest,
                f"{GOOD}={TRIED}",
                overrides=[*overrides, *_sides(loaded, name, good, release)],
                only=[str(replace(cell, framework=f"{side}{options}")) for side in (GOOD, TRIED)],
                metrics=[metric],
                margin=margin,
                maximum=maximum,
                engine=engine,
                wait_s=wait_s,
                sink=sink,
                settings=settings,
            )
        except (BuildError, SourceError) as error:
            return BisectStep(release=release, side=Side.skipped, reason=error.message)
        if not found.result.metrics or not found.result.metrics[0].low:
            why = "; ".join(found.result.remarks) or f"too few trials have {metric}"
            return BisectStep(release=release, side=Side.skipped, campaign=found.folder.name, reason=why)
        (one,) = found.result.metrics
        beyond = one.ratio > 1 + margin if lower_is_better else one.ratio < 1 / (1 + margin)
        return BisectStep(
            release=release,
            side=Side.bad if beyond else Side.good,
            ratio=one.ratio,
            low=one.low,
            high=one.high,
            sure=one.gate is not Gate.undecided,
            campaign=found.folder.name,
            reason=one.why,
        )

    search, order = Bisection(len(releases)), list[BisectStep]()

    def step(release: str, margin: float) -> BisectStep:
        if release not in state.steps:
            left = search.steps_left + (not order)
            sink(Step("bisect", "note", release, done=len(order), total=len(order) + left))
            state.steps[release] = measured(release, margin)
            write_bytes(path, (state.model_dump_json(indent=1) + "\n").encode())
        order.append(state.steps[release])
        return order[-1]

    end = step(bad, loaded.manifest.replay.margin)
    if end.side is not Side.bad or end.ratio is None:
        del state.steps[bad]  # with more pairs it may be another thing
        write_bytes(path, (state.model_dump_json(indent=1) + "\n").encode())
        found = end.reason if end.ratio is None else f"its ratio is {end.ratio:.3f} [{end.low:.3f}, {end.high:.3f}]"
        raise Inconclusive(
            f"{bad} is not shown to be worse than {good} in {metric}: {found}",
            hint="name releases that are further apart, a smaller margin (--set replay.margin=0.02), or more pairs (--maximum)",
        )
    margin = math.sqrt(max(end.ratio, 1 / end.ratio)) - 1
    while (place := search.next) is not None:
        late = minutes is not None and time.monotonic() - began > 60 * minutes
        if late and releases[place] not in state.steps:
            break
        search.known[place] = step(releases[place], margin).side
    suspects = [releases[place] for place in search.suspects]
    return Bisected(metric, releases, order, suspects, search.next is None, path)


def _sides(loaded: LoadedManifest, name: str, good: str, release: str) -> Iterator[str]:
    """What makes a framework two: one of the good release and one of that which is tried."""
    node = loaded.tree.find(("frameworks", name))
    plain = node.plain() if node is not None else None
    entry = {key: value for key, value in plain.items() if key != "release"} if isinstance(plain, dict) else {}
    entry["kind"] = loaded.manifest.frameworks[name].kind
    source = entry.get("source")
    for side, each in ((GOOD, good), (TRIED, release)):
        version = {"source": {**source, "commit": each}} if isinstance(source, dict) else {"release": each}
        yield f'frameworks."{side}"={json.dumps({**entry, **version})}'


def _one_cell(loaded: LoadedManifest, only: Sequence[str]) -> CellId:
    cells = selected(loaded.manifest, only)
    if len(cells) != 1:
        hint = f"choose one: --only '{cells[0]}'" if cells else None
        raise UsageError(f"one cell is bisected, and there are {len(cells)}", hint=hint)
    name = base(cells[0].framework)
    source = loaded.manifest.frameworks[name].source
    if source is not None and not (isinstance(source, GitSource) and source.here):
        raise UsageError(
            f"frameworks.{name} has a source that is no repository on this machine",
            hint="name a release, or clone the repository and name the folder: source: {git: FOLDER, commit: HEAD}",
        )
    return cells[0]


def _releases(loaded: LoadedManifest, name: str, good: str, bad: str) -> Sequence[str]:
    """Every release or commit from one to the other; raises `UsageError` where they are no range."""
    entry = loaded.manifest.frameworks[name]
    kind = entry.kind
    if isinstance(entry.source, GitSource):
        return commits_between(entry.source, good, bad, loaded.path.parent)
    axis = json.dumps({"kind": kind, "releases": [f"{good} .. {bad}"]})
    releases: list[str] = []
    with suppress(ManifestError):  # of a range that is none
        found = read_manifest(loaded.path, [f'frameworks."{name}"={axis}']).manifest.frameworks
        releases = [str(entry.release) for each, entry in found.items() if each == f"{name}-{entry.release}"]
    if len(releases) < 2 or (releases[0], releases[-1]) != (good, bad):
        raise UsageError(
            f"from {good} to {bad} there are no releases",
            hint="for example --good 0.3.20 --bad 0.3.36: versions of one line",
        )
    return releases


def _identity(loaded: LoadedManifest, cell: CellId, releases: Sequence[str], metric: str) -> str:
    workload = loaded.manifest.workloads[cell.workload].model_dump(mode="json")
    target = loaded.manifest.targets[cell.target].model_dump(mode="json")
    what = [manifest_digest(loaded.manifest), str(cell), workload, target, list(releases), metric]
    return digest_of(what)[:16]


def _load(path: Path) -> BisectState:
    try:
        return parse(BisectState, read_regular(path, _MOST_BYTES))
    except FileNotFoundError:
        return BisectState()
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} is damaged: {str(error).splitlines()[0]}", hint="begin anew with --new, which overwrites it"
        ) from error
