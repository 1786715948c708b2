"""Campaigns to trends: cells that are equal but for the release of their framework, or for the day, one behind the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from meltrepro.errors import NothingToCompare, UsageError
from meltrepro.frameworks.base import framework
from meltrepro.manifest.axes import base
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.measure.spreads import spread_of
from meltrepro.record.campaign import CampaignDocument, CellEntry
from meltrepro.registry import FRAMEWORKS
from meltrepro.stats.ratio import comparable
from meltrepro.stats.sessions import Spread
from meltrepro.stats.summary import Summary, summarize

By = Literal["release", "date"]
METRICS_SHOWN = ("generation_tps", "prefill_tps", "ttft_ms", "peak_memory_bytes", "energy_per_token_j")
"""Where the user names none: those of them that were measured."""
_ASKED = ("request_digest", "accelerator", "software_device", "device.id", "libc")
_PARTS = re.compile(r"\d+|[^\d.+_-]+")


@dataclass(frozen=True)
class Reached:
    """What one campaign measured of one metric at one place of the axis."""

    place: int
    """On the history's axis, from 0."""
    at: str
    """Release, or begin of the campaign (UTC)."""
    campaign: str
    began_ms: int
    """When that began, Unix time."""
    release: str
    commit: str
    model_digest: str
    bundle_digest: str
    summary: Summary
    """Over the repetitions that are believed: median, interval, number."""
    values: tuple[float, ...]
    """Of those, in order."""


@dataclass(frozen=True)
class Turning:
    """A change of a metric's level."""

    before: str
    """The last place before it."""
    after: str
    """The first one behind it: what changed came with this."""
    ratio: float
    """Level after over level before."""
    low: float
    high: float
    """Of the ratio, 95 %."""
    better: bool | None
    """Whether that is an improvement; `None` where the metric does not say."""
    border: bool
    """Whether no campaign measured both sides: something else may have changed between those."""


@dataclass(frozen=True)
class Trend:
    """One metric of one course."""

    metric: str
    unit: str
    reached: tuple[Reached, ...]
    """In the order of the axis, then by campaign."""
    session_cv: float
    """How much medians of two campaigns are taken to differ, as a share, where nothing changed."""
    calibrated: bool
    """Whether that was measured, by a calibration of the device; else it is `replay.session_cv`."""
    changes: tuple[Turning, ...]
    unjudged: str | None = None
    """Why no changes were looked for; `None` where they were."""


@dataclass(frozen=True)
class Course:
    """Cells that are equal but for what the axis says."""

    name: str
    """`model/quantization/framework/target/workload`, with the release where the axis is time."""
    virtual: bool
    synthetic: bool
    remarks: tuple[str, ...]
    """What else was not the same everywhere."""
    trends: tuple[Trend, ...]


@dataclass(frozen=True)
class History:
    by: By
    axis: tuple[str, ...]
    """Every release, or begin of a campaign, in order."""
    campaigns: tuple[str, ...]
    """Ids, oldest first."""
    session_cv: float
    """What the manifests declare (`replay.session_cv`), for devices that were not calibrated."""
    courses: tuple[Course, ...]
    left_out: Mapping[str, str]
    """Cells of which no history can be made, and why."""

    @property
    def judged(self) -> int:
        """In how many trends changes were looked for."""
        return sum(trend.unjudged is None for course in self.courses for trend in course.trends)


CourseKey = tuple[object, ...]


def key_of(entry: CellEntry, by: By) -> CourseKey:
    """The same for cells that stand in one course: all that is asked and where, but for the release and the files made for it."""
    params = entry.params
    device = params.get("device.id", entry.target)
    settings = tuple(sorted((name, value) for name, value in params.items() if name.startswith("settings.")))
    point = entry.framework.removeprefix(base(entry.framework))
    return (
        *(entry.synthetic, entry.framework_kind, point, entry.release if by == "date" else ""),
        *(entry.model, entry.quantization, entry.target, entry.workload, entry.isa, device, settings),
        *(params.get(name) for name in _ASKED),
    )


def in_order(kinds: Mapping[str, str]) -> tuple[str, ...]:
    """Releases, each with the kind of its framework, from the oldest to the newest: by the numbers in their names, 0.3.9 before
    0.3.20, or by what their framework says for them."""

    def place(release: str) -> tuple[tuple[int, int, str], ...]:
        kind = kinds[release]
        return _natural(framework(kind).ordered_as(release) if FRAMEWORKS.has(kind) else release)

    return tuple(sorted(kinds, key=lambda release: (place(release), _natural(release))))


def _natural(release: str) -> tuple[tuple[int, int, str], ...]:
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(release))


def require_metrics(metrics: Sequence[str]) -> None:
    """Raise `UsageError` for the first name that is no metric."""
    for name in metrics:
        if name not in METRICS:
            guess = near_miss(name, list(METRICS))
            raise UsageError(f"there is no metric {name!r}", hint=guess or "docs/metrics.md lists them")


def build_history(
    campaigns: Sequence[CampaignRecord],
    by: By = "release",
    metrics: Sequence[str] = (),
    wants: Callable[[str], bool] = lambda _: True,
) -> History:
    """The trends of some campaigns; `wants` says of which cells.

    Raises `UsageError` for an unknown metric, `NothingToCompare` where no cell was measured at two places, `RecordError`.
    """
    require_metrics(metrics)
    campaigns = sorted(campaigns, key=lambda one: one.document.started_wall_ns)
    groups: dict[CourseKey, list[tuple[CampaignRecord, CellRecord]]] = {}
    left_out: dict[str, str] = {}
    for campaign in campaigns:
        for cell in campaign.cells:
            if wants(cell.id):
                groups.setdefault((cell.virtual, *key_of(cell.entry, by)), []).append((campaign, cell))
        for skip in campaign.document.skipped:
            if wants(skip.id):
                left_out[f"{skip.id} of {campaign.id}"] = skip.reason
    found: dict[CourseKey, list[tuple[CampaignRecord, CellRecord]]] = {}
    for key, group in groups.items():
        used = []
        for campaign, cell in group:
            if reason := _doubt(cell):
                left_out[f"{cell.id} of {campaign.id}"] = reason
            else:
                used.append((campaign, cell))
        places = {_at(campaign, cell, by) for campaign, cell in used}
        if len(places) > 1:
            found[key] = used
        else:
            left_out |= {f"{cell.id} of {one.id}": f"measured at one {by} alone" for one, cell in used}
    if not found:
        raise _nothing(by, campaigns, left_out)
    kinds = {_at(one, cell, by): cell.entry.framework_kind for group in found.values() for one, cell in group}
    axis = in_order(kinds) if by == "release" else tuple(sorted(kinds))
    session_cv = max(campaign.manifest.replay.session_cv for campaign in campaigns)
    names = _names(found, by)
    courses = tuple(_course(names[key], group, by, axis, session_cv, metrics) for key, group in found.items())
    ids = {campaign.id for group in found.values() for campaign, _ in group}
    return History(by, axis, tuple(one.id for one in campaigns if one.id in ids), session_cv, courses, left_out)


def _nothing(by: By, campaigns: Sequence[CampaignRecord], left_out: Mapping[str, str]) -> NothingToCompare:
    why = next(iter(left_out.items()), None)
    return NothingToCompare(
        f"no cell was measured at two {by}s in {', '.join(one.id for one in campaigns[:3]) or 'no campaign'}"
        f"{' and others' if len(campaigns) > 3 else ''}" + (f"; {why[0]}: {why[1]}" if why else ""),
        hint="cells belong together where model, quantization, framework, device, workload and request are the same; run "
        + (
            "releases of one framework in one manifest, or one after the other"
            if by == "release"
            else "a campaign again"
        ),
    )


def _doubt(cell: CellRecord) -> str | None:
    """Why nothing of a cell is believed."""
    if not cell.believed:
        return f"INVALID: {cell.whole}" if cell.repetitions else "no repetition ended well"
    return f"INVALID: {cell.agreement}" if not (cell.agreement.valid or cell.with_invalid) else None


def _at(campaign: CampaignRecord, cell: CellRecord, by: By) -> str:
    if by == "release":
        return cell.entry.release
    return f"{datetime.fromtimestamp(campaign.document.started_wall_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"


def _names(found: Mapping[CourseKey, Sequence[tuple[CampaignRecord, CellRecord]]], by: By) -> Mapping[CourseKey, str]:
    """A name for each course: that of its cells with the framework's kind, and with a number where that is not unique."""
    names: dict[CourseKey, str] = {}
    for key, group in found.items():
        entry = group[0][1].entry
        point = entry.framework.removeprefix(base(entry.framework))
        release = f" {entry.release}" if by == "date" else ""
        names[key] = (
            f"{entry.model}/{entry.quantization}/{entry.framework_kind}{point}{release}/{entry.target}/{entry.workload}"
        )
    all_names = list(names.values())
    return {
        key: f"{name} #{all_names[: place + 1].count(name)}" if all_names.count(name) > 1 else name
        for place, (key, name) in enumerate(names.items())
    }


def _course(
    name: str,
    group: Sequence[tuple[CampaignRecord, CellRecord]],
    by: By,
    axis: Sequence[str],
    session_cv: float,
    metrics: Sequence[str],
) -> Course:
    measured = {metric for _, cell in group for metric in cell.summaries}
    wanted = metrics or [metric for metric in METRICS_SHOWN if metric in measured]
    trends = tuple(_trend(metric, group, by, axis, session_cv) for metric in wanted if metric in measured)
    virtual = any(cell.virtual for _, cell in group)
    return Course(name, virtual, group[0][1].entry.synthetic, tuple(_remarks(group, by)), trends)


def _remarks(group: Sequence[tuple[CampaignRecord, CellRecord]], by: By) -> Iterator[str]:
    """What was another thing though the release was the same."""
    for what in ("model_digest", "bundle_digest"):
        seen: dict[str, set[str]] = {}
        for _, cell in group:
            seen.setdefault(cell.entry.release, set()).add(getattr(cell.entry, what))
        for release, digests in seen.items():
            if len(digests) > 1:
                thing = "files of the model" if what == "model_digest" else "builds of the framework"
                yield f"{len(digests)} {thing} at release {release}, told apart by {what} in --json"


def _trend(
    metric: str, group: Sequence[tuple[CampaignRecord, CellRecord]], by: By, axis: Sequence[str], session_cv: float
) -> Trend:
    reached = []
    for campaign, cell in group:
        values = tuple(trial.metrics.values[metric] for trial in cell.believed if metric in trial.metrics.values)
        if not values:
            continue
        at = _at(campaign, cell, by)
        entry, began_ms = cell.entry, campaign.document.started_wall_ns // 10**6
        digests = (entry.commit, entry.model_digest, entry.bundle_digest)
        reached.append(
            Reached(axis.index(at), at, campaign.id, began_ms, entry.release, *digests, summarize(values), values)
        )
    reached.sort(key=lambda each: each.place)  # stable: campaigns stay in their order
    known = _known(metric, group)
    if known is not None:
        session_cv = known.session_cv
    changes, unjudged = _changes(reached, session_cv, METRICS[metric].better)
    return Trend(
        metric, METRICS[metric].unit, tuple(reached), session_cv, known is not None, changes=changes, unjudged=unjudged
    )


def _known(metric: str, group: Sequence[tuple[CampaignRecord, CellRecord]]) -> Spread | None:
    """What the newest campaign that has a calibration of the device knows of its sessions."""
    found = (campaign.calibration(cell.entry.target) for campaign, cell in reversed(group))
    calibration = next((each for each in found if each is not None), None)
    return spread_of(calibration, metric) if calibration is not None else None


def _changes(
    reached: Sequence[Reached], session_cv: float, better: Literal["higher", "lower"] | None
) -> tuple[tuple[Turning, ...], str | None]:
    try:
        from meltrepro.history.changes import Measured, enough, find_steps
    except ModuleNotFoundError as error:
        if error.name != "ruptures":
            raise
        return (), "the package ruptures is missing; it has no release for every Python (3.13 has one)"
    if not all(comparable(each.values) for each in reached):
        return (), "a value is not above zero, so that no ratio can be taken"
    measured = [Measured(each.place, each.campaign, each.values) for each in reached]
    if len({each.place for each in reached}) < 2:
        return (), "measured at one place alone"
    if not enough(measured):
        return (), "too few to judge: one repetition at each place does not show how values vary"
    places = sorted({each.place for each in reached})
    names = {each.place: each.at for each in reached}
    by_place = {place: {each.campaign for each in reached if each.place == place} for place in places}
    found = []
    for step in find_steps(measured, session_cv):
        before, after = places[step.after], places[step.after + 1]
        upwards = step.ratio > 1
        good = None if better is None else upwards == (better == "higher")
        border = not (by_place[before] & by_place[after])
        found.append(Turning(names[before], names[after], step.ratio, step.low, step.high, good, border))
    return tuple(found), None


def belonging(documents: Mapping[str, CampaignDocument], newest: str, by: By) -> list[str]:
    """Of all campaigns, by their ids, those that have a cell in common with one of them but for release or day."""
    wanted = {key_of(entry, by) for entry in documents[newest].cells}
    return [id for id, one in documents.items() if any(key_of(entry, by) in wanted for entry in one.cells)]
