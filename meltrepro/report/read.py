"""Campaign folders to the one table of results; from records alone, so that whoever has them gets the same table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meltrepro.manifest.axes import base
from meltrepro.manifest.base import changed
from meltrepro.measure.metric import generation_ns
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord
from meltrepro.record import temperature
from meltrepro.record.campaign import SkipEntry
from meltrepro.record.samples import Recording
from meltrepro.record.trace import Conversation, Trace, Turn
from meltrepro.report.results import Answer, CellResult, Device, Results, State, TurnResult

PENDING = "pending"
"""Cause of a cell whose turn has not come yet."""
_NO_OPTIONS = ("device.", "kind", "request_digest", "parameters", "bits_per_weight", "data")
"""Parameters of a cell that nobody set: they say on what it ran, or of what."""
_GREEDY = "sampling.greedy"
_MAH_PER_C = 1 / 3.6
_LEAST_LEVEL = 10.0
"""Percent of charge from which on a level, which is a whole number, tells a capacity to within 5 %."""

_LEAST_MAH, _MOST_MAH = 500.0, 50_000.0
"""Capacities of batteries that there are; some drivers count charge in another unit than they say."""


def read_results(campaigns: Sequence[CampaignRecord]) -> Results:
    """Every cell of some campaigns, in the order given; raises `RecordError` where a record is damaged."""
    cells = [cell for campaign in campaigns for cell in _cells(campaign)]
    names = {campaign.id: campaign.document.name for campaign in campaigns}
    return Results(tuple(cells), names, {one.id: study for one in campaigns if (study := one.manifest.study)})


def _cells(campaign: CampaignRecord) -> Iterator[CellResult]:
    devices: dict[str, Device] = {}
    for cell in campaign.cells:
        found = _cell(campaign, cell)
        devices.setdefault(found.device.name, found.device)
        yield found
    for skip in campaign.document.skipped:
        yield _skipped(campaign, skip, devices)


def _ending(cell: CellRecord) -> tuple[State, str | None, str | None]:
    """State, reason and cause of a cell."""
    if cell.believed:
        found = cell.agreement.findings
        if found and not cell.with_invalid:
            return "invalid", str(found[0]), found[0].reason
        return "measured", None, None
    if cell.repetitions:
        first = next(iter(cell.invalid.values())).findings[0]
        return "invalid", str(cell.exclusions[0]), first.reason
    if cell.failures:
        first = next(iter(cell.failed.values())).findings[0]
        return "failed", str(first), first.reason
    return "skipped", "no repetition has ended yet", PENDING


def _cell(campaign: CampaignRecord, cell: CellRecord) -> CellResult:
    entry, params = cell.entry, cell.entry.params
    state, reason, cause = _ending(cell)
    traces = {trial.index: trial.trace() for trial in cell.believed if trial.scoring is None}
    # What a repetition that is not believed loaded is no less true; it is read where there is no other.
    lost = (trial.trace() for trial in cell.repetitions if trial.scoring is None)
    seen = next(iter(traces.values()), None) or next(lost, None)
    context, is_software = params.get("context"), "software_device" in params
    return CellResult(
        campaign=campaign.id,
        cell=cell.id,
        state=state,
        reason=reason,
        device=_device(campaign, cell),
        # Another framework to every rule and table, so that it is set beside none that a GPU computed.
        framework=entry.framework_kind
        + (" on a software device" if is_software else "")
        + entry.framework.removeprefix(base(entry.framework)),
        release=entry.release,
        model=entry.model,
        quantization=entry.quantization,
        workload=entry.workload,
        # The layers in records of 0.1.
        accelerated=not is_software and ("accelerator" in params or _positive(params.get("gpu_layers"))),
        software_device=is_software,
        synthetic=entry.synthetic,
        parameters=_weights(campaign, cell, seen),
        model_bytes=entry.model_bytes,
        kv_bytes=seen.context.kv_bytes if seen else None,
        context=seen.context.n_ctx if seen else context if isinstance(context, int) else None,
        metrics=cell.summaries if cell.believed else {},
        unavailable=cell.unavailable,
        turns=tuple(turn for index, trace in traces.items() for turn in _turns(index, trace)),
        operators=cell.profiles,
        profile_slowdown=cell.profile_slowdown,
        temperatures=_temperatures(cell.believed[0]) if traces else (),
        scores=cell.scores,
        right=cell.right,
        asking=cell.asking,
        asked=cell.asked,
        exclusions=cell.exclusions,
        too_few=cell.too_few,
        remarks=cell.remarks,
        options={
            **{name: value for name, value in params.items() if not name.startswith(_NO_OPTIONS)},
            **cell.limits_changed,
            **changed(campaign.manifest.replay, "replay"),
        },
        ran_as=cell.ran_as,
        cause=cause,
        source=_source(campaign, entry.model),
        rank=_rank(campaign, entry.framework),
        threads=seen.context.threads if seen else None,
        vocabulary=seen.load.n_vocab if seen else None,
        answers=tuple(_answers(next(iter(traces.values())))) if traces and params.get(_GREEDY) == "true" else (),
    )


def _skipped(campaign: CampaignRecord, skip: SkipEntry, devices: Mapping[str, Device]) -> CellResult:
    key = skip.key
    name = base(key.framework)
    known = campaign.manifest.frameworks.get(name)
    return CellResult(
        campaign=campaign.id,
        cell=skip.id,
        state="skipped",
        reason=skip.reason,
        device=devices.get(key.target) or _unseen(campaign, key.target),
        framework=((known.kind if known else None) or name) + key.framework.removeprefix(name),
        release=(known.release if known else None) or "",
        model=key.model,
        quantization=key.quantization,
        workload=key.workload,
        synthetic=_made_up(campaign, key.model),
        parameters=_parameters(campaign, key.model),
        cause=skip.kind,
        source=_source(campaign, key.model),
    )


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
        prefill_tps=turn.n_read / prefill_ns * 1e9 if prefill_ns > 0 else None,
        generation_tps=turn.n_written / flowing_ns * 1e9 if flowing_ns > 0 else None,
        n_read=turn.n_read,
        n_written=turn.n_written,
    )


def _answers(trace: Trace) -> Iterator[Answer]:
    for conversation in trace.conversations:
        for turn in conversation.turns:
            yield Answer(conversation.index, turn.index, turn.token_ids, turn.text, turn.margins)


def _temperatures(trial: TrialRecord) -> tuple[tuple[float, float], ...]:
    """The hottest sensor over time: at each sweep of the sampler, the largest of all sensors' latest readings."""
    recording, turns = trial.recording(), trial.trace().turns
    if recording is None or not turns:
        return ()
    begin_ns, end_ns = turns[0].begin_ns, turns[-1].end_ns
    readings = sorted(
        (t_ns, index, value)
        for index, series in enumerate(temperature.sampled(recording))
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


def _source(campaign: CampaignRecord, model: str) -> tuple[str, ...]:
    """What the manifest calls the file that a model's weights were made from."""
    known = campaign.manifest.models.get(model)
    names = (getattr(known.source, key, None) for key in ("member", "file", "url", "filename")) if known else ()
    return tuple(str(name) for name in names if name)


def _rank(campaign: CampaignRecord, framework: str) -> int:
    names = list(campaign.manifest.points)
    return names.index(framework) if framework in names else len(names)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _device(campaign: CampaignRecord, cell: CellRecord) -> Device:
    """The device that a cell ran on, as its records describe it; raises `RecordError` where one is damaged."""
    params = cell.entry.params
    first = next(iter(cell.trials), None)
    said = first.device if first is not None else {}
    facts = _mapping(said, "facts")
    conditions = _mapping(_mapping(said, "before"), "conditions")
    memory = params.get("device.memory_bytes", facts.get("memory_bytes"))
    mode = conditions.get("power_mode", params.get("device.power_mode"))
    return Device(
        name=cell.entry.target,
        kind=str(facts.get("kind") or _kind(campaign, cell.entry.target)),
        model=str(params.get("device.model") or facts.get("model") or "unknown"),
        memory_bytes=int(memory) if isinstance(memory, int | float) else None,
        virtual=cell.virtual or facts.get("virtual") is True,
        power_mode=str(mode) if mode else None,
        battery_mah=_battery_mah(cell),
        id=str(params.get("device.id") or facts.get("id") or ""),
    )


def _unseen(campaign: CampaignRecord, target: str) -> Device:
    """What a manifest alone says of a device that nothing ran on; raises `RecordError` for a damaged manifest."""
    known = campaign.manifest.targets.get(target)
    virtual = getattr(known, "lab", None) is not None
    return Device(target, _kind(campaign, target), "unknown", memory_bytes=None, virtual=virtual)


def _kind(campaign: CampaignRecord, target: str) -> str:
    known = campaign.manifest.targets.get(target)
    return str(known.kind) if known is not None else "unknown"


def _battery_mah(cell: CellRecord) -> float | None:
    """What the device says of its capacity, else its charge over its level, where both were sampled."""
    said = cell.entry.params.get("device.battery_mah")
    if isinstance(said, int | float) and said > 0:
        return float(said)
    for trial in cell.believed:
        recording = trial.recording()
        if recording is not None and (found := _capacity(recording)) is not None:
            return found
    return None


def _capacity(recording: Recording) -> float | None:
    charge, level = recording.named("battery.charge"), recording.named("battery.level")
    if charge is None or level is None or not charge.values or not level.values:
        return None
    if charge.channel.unit != "C" or not _LEAST_LEVEL <= level.values[0] <= 100 or charge.values[0] <= 0:
        return None
    found = charge.values[0] * _MAH_PER_C / (level.values[0] / 100)
    return found if _LEAST_MAH <= found <= _MOST_MAH else None


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
