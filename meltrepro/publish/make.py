"""An entry from the record of a campaign: what may be known of it, and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

import meltrepro
from meltrepro import untrusted
from meltrepro.accuracy.scores import Score, metric_name
from meltrepro.errors import EntryError, MeltreproError
from meltrepro.frameworks.base import framework
from meltrepro.manifest.axes import base
from meltrepro.manifest.protocol import LIMITS
from meltrepro.manifest.sources import HuggingFaceSource, PypiSource, SyntheticSource
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.measure.spreads import spreads
from meltrepro.publish.entry import (
    MOST_BYTES,
    CellReplay,
    CellVerdict,
    Key,
    MetricReplay,
    PublicBundle,
    PublicCampaign,
    PublicCell,
    PublicDevice,
    PublicDigests,
    PublicEntry,
    PublicFigure,
    PublicRepetitions,
    PublicReplay,
    PublicScore,
    Setting,
    entry_bytes,
)
from meltrepro.record.campaign import CAMPAIGN, LOCK
from meltrepro.record.reader import CampaignFolder
from meltrepro.record.trial import OUTCOME
from meltrepro.replay import archive
from meltrepro.replay.claims import RECORDS
from meltrepro.replay.compare import CellComparison, Comparison, compare
from meltrepro.replay.control import is_twin, twin_of
from meltrepro.replay.replay import judge
from meltrepro.report.read import read_results
from meltrepro.report.results import CellResult, State
from meltrepro.report.tables.overview import SHOWN
from meltrepro.stats.equivalence import Design
from meltrepro.stats.summary import Summary

METRICS = (*SHOWN, "tpot_ms", "itl_p99_ms")
"""The metrics that entries have."""
FACTS = (
    *("arch", "cores", "memory_bytes", "most_w", "battery_mah", "cpu_model", "soc", "soc_manufacturer", "hardware"),
    *("os", "android", "sdk", "ios", "l4t", "kernel", "governor", "power_mode", "sandbox", "virtualization"),
)
"""What entries say of a device besides its model, by the names of `device.` parameters; a build of its system may be its owner's own."""
SETTINGS = (
    *("libc", "accelerator", "chat_template_digest", "threads", "context", "batch", "max_tokens", "ignore_eos"),
    *("conversations", "turns", "depth", "restore", "sequences", "page_cache", "task", "questions", "chunks"),
    *("stop_within", "stop_every", "data", "software_device"),
)
"""Settings that do not belong to an engine; those of engines go by the names of their options."""
_PREFIXES = ("sampling.", "protocol.", "speculate.", "settings.", f"{LIMITS}.", "replay.")
_PROCESS = tuple(f"process.{name}" for name in ("nice", "scheduler", "cpus", "aslr", "memlock_bytes"))
_BUILT_IN = "chat_template"
"""By name where it is one of ours, else by digest: a template of one's own has the name of a file."""
_VERDICTS: Mapping[State, CellVerdict] = {
    "measured": "VALID",
    "invalid": "INVALID",
    "failed": "FAILED",
    "skipped": "SKIPPED",
}
_SETTINGS: TypeAdapter[dict[str, Setting]] = TypeAdapter(dict[Key, Setting])
_CALIBRATION: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[Key, JsonValue])
_DIGITS = 6


def make_entry(
    campaign: CampaignRecord,
    wanted: frozenset[str] | None = None,
    *,
    repeats: CampaignRecord | None = None,
    bundle: Path | None = None,
    url: str | None = None,
) -> PublicEntry:
    """The entry of a campaign, or of the cells of it whose ids are `wanted`; `repeats` is the record that it is a replay of.

    Raises `RecordError` where a record is damaged, `BundleError`, and `EntryError` where an entry cannot be made: of nothing that
    ended, with a bundle of another campaign, too large.
    """
    campaign.verify()
    numbers = numbers_of(campaign)
    results = {cell.cell: cell for cell in read_results([campaign]).cells}
    devices: dict[str, PublicDevice] = {}
    replay, replayed = _replay(campaign, repeats) if repeats is not None else (None, {})
    cells = []
    for cell in campaign.cells:
        if cell.id in numbers and (wanted is None or cell.id in wanted) and cell.trials:
            devices.setdefault(cell.entry.target, _device(campaign, cell, results[cell.id]))
            place = list(devices).index(cell.entry.target)
            cells.append(_cell(campaign, cell, results[cell.id], numbers[cell.id], place, replayed.get(cell.id)))
    if not cells:
        raise EntryError(
            f"campaign {campaign.id} has nothing to publish: no trial has ended",
            hint=f"why: meltrepro show {campaign.id}",
        )
    common = {name: _common([getattr(cell, name) for cell in cells]) for name in ("settings", "effective")}
    cells = [
        cell.model_copy(
            update={
                name: {key: value for key, value in getattr(cell, name).items() if key not in common[name]}
                for name in common
            }
        )
        for cell in cells
    ]
    document = campaign.document
    return PublicEntry(
        meltrepro=meltrepro.__version__,
        campaign=PublicCampaign(
            record=record_digest(campaign),
            manifest=document.manifest_digest,
            plan=document.plan_digest,
            lock=hashlib.sha256(untrusted.read(campaign.file(LOCK))).hexdigest(),
            meltrepro=document.meltrepro_version,
            measured=f"{datetime.fromtimestamp(document.started_wall_ns // 10**9, UTC):%Y-%m-%d}",
            build_engine=document.engine,
            order=document.order,
            seed=document.seed,
            study=campaign.manifest.study,
            finished=campaign.finished,
        ),
        replay=replay,
        bundle=_bundle(campaign, bundle, url) if bundle is not None else None,
        devices=list(devices.values()),
        **common,
        cells=cells,
    )


def fitting(entry: PublicEntry) -> bytes:
    """The content of an entry's file; raises `EntryError` where it is too large."""
    content = entry_bytes(entry)
    if len(content) > MOST_BYTES:
        raise EntryError(
            f"the entry has {len(content):,} bytes, at most {MOST_BYTES:,} may be published: it is of {len(entry.cells)} cells",
            hint="make several of it, each of some cells: --only 'MODEL/*'",
        )
    return content


def record_digest(campaign: CampaignFolder) -> str:
    """What a record is known by: sha256 of a listing of its description and the outcomes of its trials.

    Those hold the digests of all other files. The listing is `sha256sum`'s, by path.
    """
    paths = [CAMPAIGN]
    for cell in campaign.cells:
        paths += [f"{trial.folder.relative_to(campaign.folder).as_posix()}/{OUTCOME}" for trial in cell.trials]
    digests = {path: hashlib.sha256(untrusted.read(campaign.folder / path)).hexdigest() for path in sorted(paths)}
    listing = "".join(f"{digest}  {path}\n" for path, digest in digests.items())
    return hashlib.sha256(listing.encode()).hexdigest()


def numbers_of(campaign: CampaignFolder) -> Mapping[str, int]:
    """What each cell is called in entries, from 1, by its id; a replay's controls have no number."""
    return {entry.id: number for number, entry in enumerate(campaign.document.cells, 1) if not is_twin(entry.id)}


def _cell(
    campaign: CampaignRecord,
    cell: CellRecord,
    result: CellResult,
    number: int,
    device: int,
    replay: CellReplay | None,
) -> PublicCell:
    entry, params = cell.entry, cell.entry.params
    asked = params.get("request_digest")
    return PublicCell(
        number=number,
        device=device,
        model=entry.model,
        source=_source(campaign, entry.model),
        quantization=entry.quantization,
        engine=entry.framework_kind + entry.framework.removeprefix(base(entry.framework)),
        release=entry.release,
        commit=entry.commit or None,
        variant=entry.isa,
        workload=entry.workload,
        synthetic=entry.synthetic,
        accelerated=result.accelerated,
        software_device=result.software_device,
        verdict=_VERDICTS[result.state],
        causes=sorted({str(flaw.reason) for flaw in cell.validity.findings}),
        repetitions=PublicRepetitions(
            asked=cell.asked, believed=len(cell.believed), invalid=len(cell.invalid), failed=len(cell.failures)
        ),
        metrics={name: _figure(result.metrics[name]) for name in METRICS if name in result.metrics},
        scores={metric_name(score): _score(score) for score in result.scores},
        settings=_settings(entry.framework_kind, result),
        effective=_effective(result),
        model_bytes=entry.model_bytes,
        digests=PublicDigests(
            model=entry.model_digest,
            bundle=entry.bundle_digest,
            runner=entry.runner_digest,
            source=entry.source_digest,
            request=asked if isinstance(asked, str) else None,
        ),
        replay=replay,
    )


def _figure(summary: Summary) -> PublicFigure:
    return PublicFigure(
        median=_rounded(summary.median), low=_rounded(summary.low), high=_rounded(summary.high), n=summary.n
    )


def _score(score: Score) -> PublicScore:
    stderr = None if score.stderr is None else _rounded(score.stderr)
    return PublicScore(value=_rounded(score.value), stderr=stderr, n=score.n, right=score.k)


def _rounded(value: float) -> float:
    """Six digits, which is more than any measurement here has."""
    return float(f"{value:.{_DIGITS}g}")


def _settings(kind: str, result: CellResult) -> dict[str, Setting]:
    try:
        options = tuple(framework(kind).options.model_fields)
    except MeltreproError:  # of a plug-in that is not here
        options = ()
    listed = {*SETTINGS, *options, *(() if "chat_template_digest" in result.options else (_BUILT_IN,))}
    return _plain(
        {name: value for name, value in result.options.items() if name in listed or name.startswith(_PREFIXES)}
    )


def _effective(result: CellResult) -> dict[str, Setting]:
    return _plain(
        {name: value for name, value in result.ran_as.items() if name in _PROCESS or name.startswith("effective.")}
    )


def _plain(values: Mapping[str, object]) -> dict[str, Setting]:
    """Those that an entry can hold: numbers, and texts that are short and can be seen; a long one is prose, and nobody's setting."""
    found: dict[str, Setting] = {}
    for name, value in values.items():
        try:
            found |= _SETTINGS.validate_python({name: value})
        except ValidationError:
            continue
    return found


def _common(each: Sequence[Mapping[str, Setting]]) -> dict[str, Setting]:
    """What all cells have alike; it need not stand in each of them."""
    first, *others = each
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _device(campaign: CampaignRecord, cell: CellRecord, result: CellResult) -> PublicDevice:
    params, device = cell.entry.params, result.device
    said = {name: params[f"device.{name}"] for name in FACTS if f"device.{name}" in params}
    if device.power_mode:
        said["power_mode"] = device.power_mode
    return PublicDevice(
        kind=device.kind,
        model=device.model,
        virtual=device.virtual,
        facts=_plain(said),
        calibration=_calibration(campaign, cell),
    )


def _calibration(campaign: CampaignRecord, cell: CellRecord) -> dict[str, JsonValue]:
    """How steady the device is and what its battery's current means, as far as that is numbers and words."""
    said: Mapping[str, Any] = next((trial.device for trial in cell.trials), {})
    probed = said.get("capabilities")
    battery = probed.get("battery") if isinstance(probed, dict) else None
    found: dict[str, Any] = {"battery": battery} if battery else {}
    known = campaign.calibration(cell.entry.target)
    if known is not None:
        found["sessions"] = len(known.sessions)
        found |= {
            metric: {"trials_cv": each.within, "sessions_cv": each.between, "sessions": each.sessions}
            for metric, each in spreads(known)
        }
    try:
        return _CALIBRATION.validate_python(_words(found))
    except ValidationError:
        return {}


def _words(value: Any) -> Any:
    """A value without texts that are more than a few words: a reason may say anything."""
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := _words(inner)) is not None}
    if isinstance(value, list):
        return [kept for inner in value if (kept := _words(inner)) is not None]
    if isinstance(value, float):
        return _rounded(value) if math.isfinite(value) else None
    return None if isinstance(value, str) and len(value.split()) > 4 else value


def _source(campaign: CampaignRecord, model: str) -> str | None:
    """Where weights come from, if everybody can look there; a file or an address may be anybody's own."""
    known = campaign.manifest.models.get(model)
    source = known.source if known else None
    if isinstance(source, PypiSource):
        return f"pypi:{source.pypi}=={source.version}"
    if isinstance(source, HuggingFaceSource):
        return f"hf:{source.huggingface}" + (f"@{source.revision[:12]}" if source.revision else "")
    if isinstance(source, SyntheticSource) and isinstance(source.synthetic, str):
        return f"synthetic:{source.synthetic}, seed {source.seed}"
    return None


# -- replays and bundles ------------------------------------------------------------------------------------------


def _replay(campaign: CampaignRecord, recorded: CampaignRecord) -> tuple[PublicReplay, Mapping[str, CellReplay]]:
    """Whether a campaign repeats a record, by the margin that its manifest declares; raises `EntryError` where it does not."""
    if record_digest(campaign) == record_digest(recorded):
        raise EntryError(f"{campaign.id} is no replay of itself", hint="name the record that it repeats")
    declared, numbers = campaign.manifest.replay, numbers_of(recorded)
    design = Design(margin=declared.margin, maximum=declared.maximum, session_cv=declared.session_cv)
    twins = {cell.id: cell for cell in campaign.cells if is_twin(cell.id)}
    own = campaign.restricted(lambda id: id not in twins)
    controls = {cell.id: twins[twin_of(cell.id)] for cell in own.cells if twin_of(cell.id) in twins}
    # A replay may be of a part of a record: what it left out was never to be repeated.
    meant = {cell.id for cell in own.cells}
    comparison = compare(recorded.restricted(meant.__contains__), own, design, controls)
    if not comparison.cells:
        raise EntryError(
            f"{campaign.id} repeats no cell of {recorded.id}",
            hint="name the record that it is a replay of with --replay-of",
        )
    cells = {
        one.cell: _cell_replay(one, numbers[one.cell], comparison) for one in comparison.cells if one.cell in numbers
    }
    verdict, _ = judge(comparison)
    return PublicReplay(record=record_digest(recorded), verdict=verdict.value, margin=declared.margin), cells


def _cell_replay(cell: CellComparison, number: int, comparison: Comparison) -> CellReplay:
    verdict, _ = judge(replace(comparison, cells=(cell,), only_first=(), only_second=()))
    return CellReplay(
        number=number,
        verdict=verdict.value,
        same_tokens=cell.tokens.exact if cell.tokens is not None else None,
        metrics=dict(_metric_replays(cell)),
    )


def _metric_replays(cell: CellComparison) -> Iterator[tuple[str, MetricReplay]]:
    for metric in cell.metrics:
        if (found := metric.decision) is None:
            continue
        known = found.low > 0 and math.isfinite(found.high)
        yield (
            metric.metric,
            MetricReplay(
                verdict=found.verdict.value,
                ratio=_rounded(found.ratio),
                low=_rounded(found.low) if known else None,
                high=_rounded(found.high) if known else None,
            ),
        )


def _bundle(campaign: CampaignRecord, path: Path, url: str | None) -> PublicBundle:
    """A bundle that holds the very record; raises `BundleError`, `EntryError` for one of another campaign."""
    member = f"{RECORDS}/{campaign.id}/{CAMPAIGN}"
    index, _ = archive.peek(path, ())
    own = hashlib.sha256(untrusted.read(campaign.folder / CAMPAIGN)).hexdigest()
    if member not in index.members or index.members[member].sha256 != own:
        raise EntryError(
            f"{path} is no bundle of {campaign.id} as it is now", hint=f"pack it: meltrepro bundle export {campaign.id}"
        )
    with untrusted.opened(path, None) as file:
        return PublicBundle(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size, url=url)
