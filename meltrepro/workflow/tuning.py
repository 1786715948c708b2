"""Tuning: the threads, batch and options with which one cell of a manifest does best, by a bounded search of campaigns."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from pydantic import BaseModel

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.campaign.campaign import finished_campaign
from meltrepro.errors import ManifestError, TargetLost, TrialFailed, UsageError
from meltrepro.manifest.axes import base, label, swept
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.pins import prompt_digests
from meltrepro.manifest.schema import Manifest, Workload
from meltrepro.manifest.yaml.overrides import place
from meltrepro.manifest.yaml.suggest import suggest
from meltrepro.manifest.yaml.tree import FieldPath, field_path
from meltrepro.measure.metric import Metric
from meltrepro.measure.metrics import METRICS, directed
from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.plan.planner import require_cells, selected
from meltrepro.record.ids import CellId
from meltrepro.settings import Settings
from meltrepro.stats.halving import Fate, Search, Setting, Tried, most_trials, settings_of
from meltrepro.stats.ratio import RatioInterval, comparable, ratio_interval
from meltrepro.steps import Sink, Step, silent
from meltrepro.words import counted
from meltrepro.workflow.artifacts import plan
from meltrepro.workflow.campaigns import run
from meltrepro.workflow.manifests import read_manifest

MEMORY = "peak_memory_bytes"
SHORT = {"memory": MEMORY}
"""What a limit may be called besides its metric."""
BATCHES = (32, 128, 512, 2048)
"""Those that are tried where the manifest names none, as far as the context holds them."""
MOST = 100
"""Trials of a search, unless somebody says otherwise."""
MOST_SETTINGS = 1000
"""Combinations of which the plan is asked whether they can run."""
_SIZES = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class TunedKey:
    """A key of the manifest whose value is searched for."""

    path: FieldPath
    values: Sequence[Any]
    """Those that it may have, as JSON has them; the first is what it has."""

    @property
    def name(self) -> str:
        return field_path(self.path)

    @property
    def set(self) -> str:
        """How `--set` spells it."""
        return ".".join(f'"{step}"' for step in self.path)


@dataclass(frozen=True)
class TuningPlan:
    """What is searched, and how."""

    loaded: LoadedManifest
    metric: Metric
    limits: Mapping[str, float]
    """By metric, the most or, where higher is better, the least that a setting may have in the median."""
    cell: CellId
    """The cell, its framework without options."""
    keys: Sequence[TunedKey]
    whole: bool
    """Whether all combinations are searched, or one key after the other, the others as they are best so far."""
    trials: int
    """The most that there will be, warm-ups too."""
    output: Path
    """The manifest to write."""
    skipped: Mapping[Setting, str] = field(default_factory=dict)
    """Settings that cannot run, and why."""

    @cached_property
    def settings(self) -> Sequence[Setting]:
        """Every combination."""
        return settings_of([len(key.values) for key in self.keys])

    def values(self, setting: Setting) -> dict[str, Any]:
        """A setting's values by key."""
        return {key.name: key.values[i] for key, i in zip(self.keys, setting, strict=True)}

    def overrides(self, settings: Sequence[Setting], repetitions: int) -> list[str]:
        """What makes the manifest one of these settings, side by side."""
        found = [f"protocol.repetitions={repetitions}", "protocol.order=interleaved"]
        found += [f"{key.set}={json.dumps(key.values)}" for key in self.keys if key.path[0] == "frameworks"]
        for section, name in (("targets", self.cell.target), ("workloads", self.cell.workload)):
            node = self.loaded.tree.find((section, name))
            own = {"kind": "host"} if node is None else node.plain()
            for setting in settings:
                entry = json.loads(json.dumps(own))
                for key, value in self._changes(section, setting):
                    inner = entry
                    for step in key.path[2:-1]:
                        inner = inner.setdefault(step, {})
                    inner[key.path[-1]] = value
                if (named := self._named(section, name, setting)) != name:
                    found.append(f'{section}."{named}"={json.dumps(entry)}')
        return list(dict.fromkeys(found))

    def cells(self, settings: Sequence[Setting], repetitions: int) -> dict[Setting, str]:
        """The ids of the cells of these settings in that manifest."""
        manifest = read_manifest(self.loaded.path, self.overrides(settings, repetitions)).manifest
        own = [(i, str(key.path[-1])) for i, key in enumerate(self.keys) if key.path[0] == "frameworks"]
        points = {
            tuple(label(point.values[name]) for _, name in own): name
            for name, (entry, point) in manifest.points.items()
            if entry == self.cell.framework
        }
        model, quantization, _, target, workload = vars(self.cell).values()
        return {
            setting: str(
                CellId(
                    *(model, quantization, points[tuple(label(self.keys[i].values[setting[i]]) for i, _ in own)]),
                    self._named("targets", target, setting),
                    self._named("workloads", workload, setting),
                )
            )
            for setting in settings
        }

    def _named(self, section: str, name: str, setting: Setting) -> str:
        changes = self._changes(section, setting)
        return name + "".join(f"-{'.'.join(map(str, key.path[2:]))}{label(value)}" for key, value in changes)

    def _changes(self, section: str, setting: Setting) -> Iterator[tuple[TunedKey, Any]]:
        """What a setting has otherwise than the manifest in one of its sections."""
        for key, i in zip(self.keys, setting, strict=True):
            if key.path[0] == section and i:
                yield key, key.values[i]


@dataclass(frozen=True)
class Tuned:
    """A search that found a setting."""

    plan: TuningPlan
    tried: Mapping[Setting, Tried]
    """Every setting that was measured or left out, as of the last round that it was in."""
    best: Setting
    gain: RatioInterval | None
    """The best over the manifest's own of the same round; `None` where they are the same, or cannot be compared."""
    campaigns: Sequence[Path]
    """The records of the rounds."""


def plan_tuning(
    manifest: Path | str,
    metric: str,
    *,
    within: Sequence[str] = (),
    over: Sequence[str] = (),
    only: Sequence[str] = (),
    most: int = MOST,
    output: Path | str | None = None,
    force: bool = False,
    settings: Settings | None = None,
) -> TuningPlan:
    """What a search will do; fetches, builds and runs nothing.

    `within` are limits (`memory=1GB`, `METRIC=VALUE` in the metric's unit), `over` further keys (`KEY=VALUE,VALUE`), and `most`
    is the largest number of trials. Raises `UsageError`, `ManifestError`, `PlanError` and the errors of planning.
    """
    loaded = read_manifest(Path(manifest), ())
    wanted, limits = directed(metric, "--for"), dict(_limit(each) for each in within)
    out = Path(output or loaded.path.with_name(f"{loaded.path.stem}.tuned.yaml"))
    if out.absolute() == loaded.path or (out.exists() and not force):
        raise UsageError(f"{out} is there already", hint="name another file with -o, or overwrite it with --force")
    cells = selected(loaded.manifest, only)
    cell = _one_cell(loaded, cells)
    planned = plan(loaded.path, only=only, settings=settings)
    facts = planned.devices[cell.target].facts
    if facts is None:
        require_cells(planned.plan)
    keys = _keys(loaded, cell, cells, over, facts.cores if facts is not None else 1)
    sizes, warmups = [len(key.values) for key in keys], loaded.manifest.protocol.warmups
    if max(sizes, default=1) == 1:
        raise UsageError("there is nothing to choose from", hint="name a key and its values: --over KEY=VALUE,VALUE")
    trials = {whole: most_trials(sizes, whole=whole, warmups=warmups) for whole in (True, False)}
    whole = trials[True] <= most
    if trials[whole] > most:
        what = f"a search of {counted(sum(sizes), 'value')} may take {trials[False]} trials, one key after the other"
        raise UsageError(what, hint=f"allow them with --most {trials[False]}, or name fewer values with --over")
    found = TuningPlan(loaded, wanted, limits, cell, keys, whole, trials[whole], out)
    if prod(sizes) > MOST_SETTINGS:
        raise UsageError(
            f"these values make {prod(sizes)} settings, more than {MOST_SETTINGS}", hint="search fewer keys at a time"
        )
    every = found.cells(found.settings, 1)
    overrides = found.overrides(found.settings, 1)
    whole_plan = plan(loaded.path, overrides=overrides, only=list(every.values()), settings=settings).plan
    require_cells(whole_plan)
    reasons = {each.cell_id: each.reason for each in whole_plan.skipped}
    skipped = {setting: reasons[id] for setting, id in every.items() if id in reasons}
    return replace(found, skipped=skipped)


def tune(
    planned: TuningPlan,
    *,
    engine: EngineName = "docker",
    new: bool = False,
    track: bool = True,
    wait_s: float = 0.0,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Tuned:
    """Search as planned, and write the manifest that has the best setting.

    Each round is a campaign of its own; one that has ended is not measured again unless `new`, so that the same call goes on
    where one stopped. A step named `tuning` says what each round does. Raises what `run` raises, `TrialFailed` where every
    setting is out, `TargetLost` where a round could not be ended.
    """
    settings = settings or settings_module.load()
    kept, campaigns, memory = settings, list[Path](), dict[Setting, float]()
    loaded, protocol, own = planned.loaded, planned.loaded.manifest.protocol, (0,) * len(planned.keys)
    spent_s, ran_trials, trials = 0.0, 0, 0

    def measure(chosen: Sequence[Setting], repetitions: int) -> Mapping[Setting, Tried]:
        nonlocal spent_s, ran_trials, trials
        cells, overrides = planned.cells(chosen, repetitions), planned.overrides(chosen, repetitions)
        only, here = list(cells.values()), len(chosen) * (repetitions + protocol.warmups)
        left_s = spent_s / ran_trials * (planned.trials - trials) if ran_trials else None
        detail = {"settings": len(chosen), "repetitions": repetitions, "left_s": left_s}
        sink(Step("tuning", "note", str(search.done), done=trials, total=planned.trials, detail=detail))
        trials += here
        wanted = read_manifest(loaded.path, overrides)
        folder = None if new else finished_campaign(kept.records, wanted.manifest, prompt_digests(wanted), only)
        if folder is None:
            options: dict[str, Any] = {"engine": engine, "new": new, "track": track, "wait_s": wait_s, "sink": sink}
            ran = run(loaded.path, overrides=overrides, only=only, settings=kept, **options)
            if ran.tally.left:
                raise TargetLost(
                    f"{counted(ran.tally.left, 'trial')} of this round were not run", hint="the same command goes on"
                )
            folder, spent_s, ran_trials = ran.folder, spent_s + ran.measured_s, ran_trials + here
        else:
            sink(Step("tuning", "note", str(search.done), detail={"campaign": folder.name}))
        campaigns.append(folder)
        records = {cell.id: cell for cell in read_campaign(folder).cells}
        for setting, id in cells.items():
            if id in records and MEMORY in records[id].summaries:
                memory[setting] = records[id].summaries[MEMORY].median
        return {setting: _tried(records.get(id), planned) for setting, id in cells.items()}

    def simpler(setting: Setting) -> tuple[float, ...]:
        """Fewer threads; then what the manifest has; then less memory; then as written."""
        threads = [value for name, value in planned.values(setting).items() if name.endswith(".threads")]
        return (*threads, setting != own, memory.get(setting, float("inf")), *setting)

    search = Search([len(key.values) for key in planned.keys], planned.metric.better == "higher", measure, simpler)
    search.tried.update({setting: Tried((), why, Fate.out) for setting, why in planned.skipped.items()})
    best = search.run(whole=planned.whole)
    if best is None:
        raise _nothing(planned, search.tried, campaigns)
    found = Tuned(planned, search.tried, best, _gain(search.tried, own, best), campaigns)
    write_bytes(planned.output, _written(found).encode())
    return found


def _nothing(planned: TuningPlan, tried: Mapping[Setting, Tried], campaigns: Sequence[Path]) -> TrialFailed:
    shown = [
        f"  {', '.join(f'{name}={value}' for name, value in planned.values(setting).items())}: {each.why_out}"
        for setting, each in tried.items()
    ]
    more = [f"  and {len(shown) - 5} more"] if len(shown) > 5 else []
    last = campaigns[-1].name if campaigns else "last"
    return TrialFailed(
        "\n".join(["no setting can be taken:", *shown[:5], *more]), hint=f"what was measured: meltrepro show {last}"
    )


# -- what is searched ---------------------------------------------------------------------------------------------


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    metric = directed(SHORT.get(name, name), "--within")
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kKMG]i?B)?", value)
    unit = (found[2] or "") if found else ""
    if found is None or unit not in _SIZES or (unit and metric.unit != "bytes"):
        example = f"{name}=1GB" if metric.unit == "bytes" else f"{name}=10"
        raise UsageError(
            f"--within: expected METRIC=VALUE in {metric.unit}, got {text!r}", hint=f"for example {example}"
        )
    return metric.name, float(found[1]) * _SIZES[unit]


def _one_cell(loaded: LoadedManifest, cells: Sequence[CellId]) -> CellId:
    """The one that is meant, its framework without options; raises `UsageError` where there are several."""
    found = {CellId(c.model, c.quantization, base(c.framework), c.target, c.workload): None for c in cells}
    cell = next(iter(found))
    if len(found) > 1:
        raise UsageError(
            f"one cell is tuned at a time, and there are {len(found)}", hint=f"choose one: --only '{cell}'"
        )
    if not isinstance(loaded.manifest.workloads[cell.workload], Workload):
        raise UsageError(f"workloads.{cell.workload} is a task of accuracy", hint="name a workload of conversations")
    return cell


def _keys(
    loaded: LoadedManifest, cell: CellId, cells: Sequence[CellId], over: Sequence[str], cores: int
) -> list[TunedKey]:
    """The keys that lists in the manifest and `over` name, and threads and batch where it is silent, in this order."""
    manifest, found = loaded.manifest, dict[FieldPath, list[Any]]()
    options, workload = manifest.frameworks[cell.framework].options, manifest.workloads[cell.workload]
    points = [point for name, (_, point) in manifest.points.items() if name in {each.framework for each in cells}]
    for name in points[0].values:
        found["frameworks", cell.framework, "options", name] = [point.values[name] for point in points]
    for each in over:
        key, _, values = each.partition("=")
        path, node = place(loaded.tree, f"{key}=[{values}]", "--over")
        entry = path[:2] in (("targets", cell.target), ("workloads", cell.workload))
        axis = path[:3] == ("frameworks", cell.framework, "options") and path[3] in swept(type(options))
        if len(path) < 3 or not (entry or axis):
            raise UsageError(
                f"--over {key}: a key of targets.{cell.target} or workloads.{cell.workload}, or an option of"
                f" frameworks.{cell.framework} that changes nothing that is built, can be searched",
                hint=suggest(str(path[-1]), swept(type(options))) or "give each value a manifest, and compare them",
            )
        for value in node.plain():
            read_manifest(loaded.path, [f"{TunedKey(path, ()).set}={json.dumps(value)}"])
        found[path] = [found[path][0] if path in found else _own(manifest, path, cores), *node.plain()]
    usual: dict[FieldPath, list[Any]] = {
        ("targets", cell.target, "threads"): [cores, *(2**n for n in range(cores.bit_length()) if 2**n < cores)],
        ("workloads", cell.workload, "batch"): [
            workload.batch,
            *(each for each in BATCHES if each <= workload.context),
        ],
    }
    for usually, tried in usual.items():
        if usually not in loaded.keys and len({*tried}) > 1 and _settable(loaded, usually, tried[0]):
            found.setdefault(usually, tried)
    return [TunedKey(path, list({label(each): each for each in values}.values())) for path, values in found.items()]


def _settable(loaded: LoadedManifest, path: FieldPath, value: object) -> bool:
    """Whether a key has a place in the file: what a list of lengths made has none."""
    with suppress(ManifestError):
        read_manifest(loaded.path, [f"{TunedKey(path, ()).set}={json.dumps(value)}"])
        return True
    return False


def _own(manifest: Manifest, path: FieldPath, cores: int) -> Any:
    """What a key has now, as JSON has it."""
    found: Any = getattr(manifest, str(path[0]))[path[1]]
    for step in path[2:]:
        found = getattr(found, str(step), None)
    if path[0] == "targets" and path[2:] == ("threads",):
        return found or cores
    return json.loads(found.model_dump_json()) if isinstance(found, BaseModel) else found


# -- what was found -----------------------------------------------------------------------------------------------


def _tried(cell: CellRecord | None, planned: TuningPlan) -> Tried:
    """What a round says of a setting: its values, or why it is out."""
    if cell is None:
        return Tried(why_out="left out of its campaign; meltrepro plan says why")
    if cell.failures:
        return Tried(why_out=f"failed: {next(iter(cell.failed.values()))}")
    if not cell.whole.valid:
        return Tried(why_out=str(cell.whole))
    summaries = cell.summaries
    for name in (planned.metric.name, *planned.limits):
        if name not in summaries:
            return Tried(why_out=f"no {name}: {cell.unavailable.get(name, 'not measured')}")
    values = [trial.metrics.values[planned.metric.name] for trial in cell.believed]
    for name, limit in planned.limits.items():
        found, least = summaries[name].median, METRICS[name].better == "higher"
        if found < limit if least else found > limit:
            return Tried(values, f"{name} {found:.6g} {'below' if least else 'above'} {limit:.6g}")
    return Tried(values)


def _gain(tried: Mapping[Setting, Tried], own: Setting, best: Setting) -> RatioInterval | None:
    one, other = tried[own], tried[best]
    same_round = own != best and one.round == other.round and not one.why_out
    if not same_round or not (comparable(one.values) and comparable(other.values)):
        return None
    return ratio_interval(one.values, other.values)


def _written(found: Tuned) -> str:
    """The manifest that has the best setting: the one that was tuned, and what was found."""
    planned, best = found.plan, found.tried[found.best]
    tree: dict[str, Any] = {}
    for key, value in zip(planned.keys, planned.values(found.best).values(), strict=True):
        inner = tree
        for step in key.path[:-1]:
            inner = inner.setdefault(str(step), {})
        inner[str(key.path[-1])] = value
    include = os.path.relpath(planned.loaded.path, planned.output.absolute().parent)
    head = {
        "meltrepro": 1,
        "name": f"{planned.loaded.manifest.name[:58]}-tuned",
        "include": [Path(include).as_posix()],
    }
    about = f"{planned.metric.name} {median(best.values):.6g} {planned.metric.unit} in {found.campaigns[-1].name}"
    limits = "".join(f", {name} within {limit:.6g}" for name, limit in planned.limits.items())
    body = yaml.safe_dump({**head, **tree}, sort_keys=False, allow_unicode=True)
    return f"# Tuned for {planned.metric.name}{limits}: {planned.cell}\n# {about}\n{body}"
