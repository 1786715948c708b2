"""Campaign folders to the one table of results; from records alone, so that whoever has them gets the same table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from meltrepro.measure.metric import generation_ns
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord
from meltrepro.record.campaign import SkipEntry
from meltrepro.record.trace import Conversation, Trace, Turn
from meltrepro.report.devices import device_of, device_unseen
from meltrepro.report.results import CellResult, Device, Results, State, TurnResult
from meltrepro.stats.summary import Summary

PENDING = "pending"
"""Cause of a cell whose turn has not come yet."""
_SKIPPED = (
    ("memory", re.compile(r"^needs .+ of memory\b")),
    ("disk", re.compile(r"^needs .+ on disk\b")),
    ("context", re.compile(r"^needs a context\b")),
    ("unreachable", re.compile(r"could not be reached$")),
)
_OTHER_SKIP = "unsupported"
_QUANTIZED_FILE = re.compile(r"[-._](i?q\d[a-z0-9_]*)\.gguf$", re.IGNORECASE)
_TEMPERATURE = "temperature."


def read_results(campaigns: Sequence[CampaignRecord]) -> Results:
    """Every cell of some campaigns, in the order given; raises `RecordError` where a record is damaged."""
    cells = [cell for campaign in campaigns for cell in _cells(campaign)]
    return Results(tuple(cells), {campaign.id: campaign.document.name for campaign in campaigns})


def skip_cause(reason: str) -> str:
    """One word for why a plan left a cell out: `memory`, `disk`, `context`, `unreachable` or `unsupported`."""
    return next((cause for cause, pattern in _SKIPPED if pattern.search(reason)), _OTHER_SKIP)


def _cells(campaign: CampaignRecord) -> Iterator[CellResult]:
    devices: dict[str, Device] = {}
    for cell in campaign.cells:
        found = _cell(campaign, cell)
        devices.setdefault(found.device.name, found.device)
        yield found
    for skip in campaign.document.skipped:
        yield _skipped(campaign, skip, devices)


@dataclass(frozen=True)
class _Standing:
    """How a cell ended."""

    state: State
    reason: str | None = None
    cause: str | None = None


def _standing(cell: CellRecord) -> _Standing:
    if cell.believed:
        found = cell.agreement.findings
        if found and not cell.with_invalid:
            return _Standing("invalid", str(found[0]), found[0].reason)
        return _Standing("measured")
    if cell.repetitions:
        first = next(iter(cell.invalid.values())).findings[0]
        return _Standing("invalid", cell.exclusions[0], first.reason)
    if cell.failures:
        reason = cell.failures[0].outcome.reason or "no reason was recorded"
        return _Standing("failed", reason.splitlines()[0], reason.partition(":")[0].strip())
    return _Standing("skipped", "no repetition has ended yet", PENDING)


def _cell(campaign: CampaignRecord, cell: CellRecord) -> CellResult:
    entry, params, standing = cell.entry, cell.entry.params, _standing(cell)
    traces = {trial.index: trial.trace() for trial in cell.believed if trial.scoring is None}
    seen = next(iter(traces.values()), None) or _any_trace(cell)
    context = params.get("context")
    return CellResult(
        campaign=campaign.id,
        cell=cell.id,
        state=standing.state,
        reason=standing.reason,
        device=device_of(campaign, cell),
        framework=str(params.get("kind", entry.framework)),
        release=entry.release,
        model=entry.model,
        quantization=entry.quantization,
        workload=entry.workload,
        accelerated=_positive(params.get("gpu_layers")),
        synthetic=entry.synthetic,
        parameters=_weights(campaign, cell, seen),
        model_bytes=entry.model_bytes,
        kv_bytes=seen.context.kv_bytes if seen else None,
        context=seen.context.n_ctx if seen else context if isinstance(context, int) else None,
        metrics=_metrics(cell),
        unavailable=cell.unavailable,
        turns=tuple(turn for index, trace in traces.items() for turn in _turns(index, trace)),
        operators=cell.profiles,
        profile_slowdown=cell.profile_slowdown,
        temperatures=_temperatures(cell.believed[0]) if traces else (),
        scores=cell.scores,
        asked=cell.asked,
        doubts=cell.exclusions,
        cause=standing.cause,
        requantized_from=_requantized(campaign, entry.model),
    )


def _skipped(campaign: CampaignRecord, skip: SkipEntry, devices: Mapping[str, Device]) -> CellResult:
    key = skip.key
    known = campaign.manifest.frameworks.get(key.framework)
    return CellResult(
        campaign=campaign.id,
        cell=skip.id,
        state="skipped",
        reason=skip.reason,
        device=devices.get(key.target) or device_unseen(campaign, key.target),
        framework=(known.kind if known else None) or key.framework,
        release=(known.release if known else None) or "",
        model=key.model,
        quantization=key.quantization,
        workload=key.workload,
        synthetic=_made_up(campaign, key.model),
        parameters=_parameters(campaign, key.model),
        cause=skip_cause(skip.reason),
        requantized_from=_requantized(campaign, key.model),
    )


def _metrics(cell: CellRecord) -> Mapping[str, Summary]:
    """Over the repetitions that are believed; none of a cell without any."""
    return cell.summaries if cell.believed else {}


def _any_trace(cell: CellRecord) -> Trace | None:
    """Events of a repetition that is not believed: what it loaded is no less true."""
    told = (trial for trial in cell.repetitions if trial.scoring is None)
    return next((trial.trace() for trial in told), None)


def _weights(campaign: CampaignRecord, cell: CellRecord, seen: Trace | None) -> float | None:
    """Number of weights: as the runner counted them, else by the bits per weight of the file, else by the manifest."""
    if seen is not None and seen.load.n_params:
        return float(seen.load.n_params)
    if cell.bits_per_weight:
        return 8 * cell.entry.model_bytes / cell.bits_per_weight
    return _parameters(campaign, cell.entry.model)


def _turns(repetition: int, trace: Trace) -> Iterator[TurnResult]:
    begin_ns = trace.turns[0].begin_ns if trace.turns else 0
    for conversation in trace.conversations:
        for turn in conversation.turns:
            yield _turn(repetition, conversation, turn, begin_ns)


def _turn(repetition: int, conversation: Conversation, turn: Turn, begin_ns: int) -> TurnResult:
    prefill_ns = turn.prefill.end_ns - turn.prefill.begin_ns if turn.prefill else 0
    flowing_ns = generation_ns(turn) if turn.n_gen > 1 else 0
    return TurnResult(
        repetition=repetition,
        conversation=conversation.index,
        turn=turn.index,
        began_s=(turn.begin_ns - begin_ns) / 1e9,
        n_prompt=turn.n_prompt,
        n_gen=turn.n_gen,
        n_past=turn.n_past,
        prefill_tps=turn.n_prompt / prefill_ns * 1e9 if prefill_ns > 0 else None,
        generation_tps=(turn.n_gen - 1) / flowing_ns * 1e9 if flowing_ns > 0 else None,
    )


def _temperatures(trial: TrialRecord) -> tuple[tuple[float, float], ...]:
    """The hottest sensor over time: at each sweep of the sampler, the largest of all sensors' latest readings."""
    recording, turns = trial.recording(), trial.trace().turns
    if recording is None or not turns:
        return ()
    begin_ns, end_ns = turns[0].begin_ns, turns[-1].end_ns
    readings = sorted(
        (t_ns, index, value)
        for index, series in enumerate(recording.series)
        if series.channel.name.startswith(_TEMPERATURE)
        for t_ns, value in zip(series.t_ns, series.values, strict=True)
    )
    latest: dict[int, float] = {}
    found: dict[int, float] = {}
    for t_ns, index, value in readings:
        latest[index] = value
        if begin_ns <= t_ns <= end_ns:
            found[t_ns] = max(latest.values())
    return tuple(((t_ns - begin_ns) / 1e9, hottest) for t_ns, hottest in found.items())


def _parameters(campaign: CampaignRecord, model: str) -> float | None:
    known = campaign.manifest.models.get(model)
    return known.parameter_count if known else None


def _made_up(campaign: CampaignRecord, model: str) -> bool:
    known = campaign.manifest.models.get(model)
    return known is not None and known.synthetic


def _requantized(campaign: CampaignRecord, model: str) -> str | None:
    """The quantization that the name of a model's source file tells."""
    known = campaign.manifest.models.get(model)
    if known is None:
        return None
    names = (str(getattr(known.source, key, "") or "") for key in ("member", "file", "url", "filename"))
    return next((match[1] for name in names if (match := _QUANTIZED_FILE.search(name))), None)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
