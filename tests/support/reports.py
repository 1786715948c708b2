"""Made-up results for reports: one of everything, so that every table and figure has data; and hostile texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from meltrepro.manifest.protocol import Order
from meltrepro.measure.operators import Breakdown, Share
from meltrepro.record.campaign import CampaignDocument, CellEntry, TrackingEntry
from meltrepro.record.study import StudyDocument, StudyEntry
from meltrepro.record.trace import OperatorPhase
from meltrepro.report.content import Content
from meltrepro.report.results import Answer, CellResult, Device, Results, Score, TurnResult
from meltrepro.stats.summary import Summary, summarize
from meltrepro.studies.melt.study import STUDY

HOST = Device("host", "host", "Intel Xeon, 2 cores", 8_000_000_000, virtual=False)
PHONE = Device("phone", "android", "virtual phone", 6_000_000_000, virtual=True, battery_mah=3785.0)
BOARDS = tuple(
    Device("board", "jetson", "virtual Orin", 8_000_000_000, virtual=True, power_mode=mode)
    for mode in ("MAXN", "7W", "15W")
)
OLD, NEW = "2024-02-27", "2026-10-01"
HOSTILE = "</script><img src=x onerror=alert(1)>'\"&{{ 7*7 }}\\input{/etc/passwd}$x_1^2$%\u202e\x00,=1+1\r\nEND"
"""What no page, no LaTeX and no spreadsheet may take for its own."""

_QUANTIZATIONS = {"q3_K": 3.91, "q4_0": 4.55, "q4_K": 4.83, "q5_K": 5.68, "q8_0": 8.5, "f16": 16.0}
_SPEED = {"q3_K": 0.93, "q4_0": 1.0, "q4_K": 0.96, "q5_K": 0.86, "q8_0": 0.62, "f16": 0.34}


def spread(middle: float, n: int = 5, relative: float = 0.02) -> Summary:
    """A summary of values around a middle."""
    return summarize([middle * (1 + relative * math.sin(1 + 2 * i)) for i in range(n)])


def turns(
    generation: float,
    prefill: float,
    *,
    repetitions: int = 5,
    conversations: int = 1,
    count: int = 3,
    slope: float = 0.0,
) -> tuple[TurnResult, ...]:
    """Turns of about these speeds, with a little noise; `slope` is the loss of speed from the first to the last."""
    made = []
    for repetition in range(repetitions):
        clock = 0.0
        for conversation in range(conversations):
            for turn in range(count):
                wobble = 1 + 0.02 * math.sin(1 + 7 * repetition + 3 * turn + generation)
                speed = generation * wobble * (1 - slope * turn / max(count - 1, 1))
                made.append(
                    TurnResult(
                        *(repetition, conversation, turn, clock, 30 + turn, 64, 94 * (turn + 1)),
                        prefill * wobble,
                        speed,
                        n_read=30 + turn,
                        n_written=63,
                    )
                )
                clock += 64 / speed + 1
    return tuple(made)


def cell(
    model: str,
    quantization: str,
    parameters: float,
    *,
    device: Device = HOST,
    release: str = OLD,
    workload: str = "macro",
    speed: float = 1.0,
    energy: bool = False,
    synthetic: bool = False,
    campaign: str = "20261128T040000Z-paper-00000a",
) -> CellResult:
    """A measured cell whose figures follow from its size."""
    size = int(parameters * _QUANTIZATIONS[quantization] / 8)
    generation = speed * 2.2e10 / parameters * _SPEED[quantization]
    prefill = generation * (5.5 if release == NEW else 3.2)
    kv = int(parameters * 0.05)
    metrics = {
        "generation_tps": spread(generation),
        "prefill_tps": spread(prefill, relative=0.05),
        "ttft_ms": spread(30e3 / prefill),
        "peak_memory_bytes": spread((size + kv) * (1.04 + 0.05 * (parameters < 5e8)), relative=0.004),
        "temperature_start_c": spread(41),
        "temperature_max_c": spread(63),
    }
    unavailable: dict[str, str] = {}
    if energy:
        joules = parameters / 1e9 * 0.9 * _QUANTIZATIONS[quantization] / 4.5
        metrics |= {
            "energy_per_token_j": spread(joules, relative=0.04),
            "energy_per_prompt_token_j": spread(joules / 4, relative=0.06),
            "net_energy_per_token_j": spread(joules * 0.8),
            "idle_power_w": spread(1.9),
            "prefill_power_w": spread(9.8),
            "generation_power_w": spread(7.9),
            "charge_per_token_mah": spread(joules / 3.85 / 3.6),
        }
    else:
        unavailable = dict.fromkeys(
            ("energy_per_token_j", "energy_per_prompt_token_j", "net_energy_per_token_j"), "the device shows no power"
        )
    return CellResult(
        campaign=campaign,
        cell=f"{model}/{quantization}/llama.cpp/{device.name}/{workload}",
        state="measured",
        reason=None,
        device=device,
        framework="llama.cpp",
        release=release,
        model=model,
        quantization=quantization,
        workload=workload,
        synthetic=synthetic,
        parameters=parameters,
        model_bytes=size,
        kv_bytes=kv,
        context=2048,
        metrics=metrics,
        unavailable=unavailable,
        turns=turns(generation, prefill),
    )


def _sustained(base: CellResult) -> CellResult:
    made = turns(
        base.metrics["generation_tps"].median, base.metrics["prefill_tps"].median, repetitions=3, count=48, slope=0.25
    )
    end = max(turn.began_s for turn in made if turn.repetition == 0)
    heat = tuple((end * i / 90, 42 + 25 * (1 - math.exp(-i / 30))) for i in range(91))
    return replace(base, workload="sustained", turns=made, temperatures=heat)


def _breakdown(phase: OperatorPhase) -> Breakdown:
    parts = (
        *(("MUL_MAT", "ffn_up", 32, 26), ("MUL_MAT", "ffn_gate", 32, 25), ("MUL_MAT", "ffn_down", 32, 24)),
        *(("MUL_MAT", "attn_q", 32, 8), ("MUL_MAT", "attn_output", 32, 7), ("MUL_MAT", "output", 1, 4)),
        *(
            ("SOFT_MAX", "kq_soft_max", 32, 2),
            ("ROPE", "", 64, 1),
            ("RMS_NORM", "attn_norm", 32, 0.6),
            ("CPY", "", 64, 0.4),
        ),
    )
    single = sum(weight / calls for _, _, calls, weight in parts)
    shares = tuple(
        Share(name, module, calls * 63, int(weight * 1e7), weight / 100, weight / calls / single)
        for name, module, calls, weight in parts
    )
    return Breakdown(phase, 63, 10**9, shares, sum(weight for *_, weight in parts) / 100)


def _scores(quantization: str, at: float) -> tuple[Score, ...]:
    bits = _QUANTIZATIONS[quantization]
    value = at - 0.12 / bits
    k = round(value * 400)
    return (
        Score("arc_easy", "acc", k / 400, math.sqrt(value * (1 - value) / 400), 400, k),
        Score("truthfulqa", "mc1", 0.25 + 0.001 * bits, 0.02, 400, 100),
        Score("perplexity", "perplexity", 14 + 6 / bits, 0.3, 2000, None),
    )


def _right(k: int) -> dict[str, bool]:
    """So many of 400 questions: the last 40, and of the others the first."""
    return {str(question): question < k - 40 or question >= 360 for question in range(400)}


def everything() -> Content:
    """Results that fill every table and figure."""
    cells: list[CellResult] = []
    zoo = (("tinyllama-1.1b", 1.1e9), ("stablelm-zephyr-3b", 2.8e9), ("gemma-2b", 2.51e9))
    for release, speed in ((OLD, 1.0), (NEW, 1.3)):
        for model, parameters in zoo:
            cells += [
                cell(model, q, parameters, release=release, speed=speed, synthetic=True)
                for q in ("q3_K", "q4_0", "q4_K")
            ]
        cells += [
            replace(made, scores=found, right=_right(found[0].k or 0)) if release == OLD else made
            for q in _QUANTIZATIONS
            for found in [_scores(q, 0.56)]
            for made in [cell("smollm2-135m", q, 1.35e8, release=release, speed=speed)]
        ]
    cells.append(cell("llama-3.2-1b", "q4_0", 1.24e9, release=NEW, speed=1.3, synthetic=True))
    cells[0] = replace(cells[0], ran_as={"process.nice": 0, "effective.flash_attention": "on"})
    cells[0] = replace(cells[0], options={"threads": 4, "context": 2048, "sampling.greedy": "true"})
    cells[1] = replace(cells[1], options={"threads": 2, "context": 2048})
    cells[1] = replace(cells[1], operators={phase: _breakdown(phase) for phase in ("prefill", "generation")})
    cells += [_sustained(cell(model, "q4_0", parameters, synthetic=True)) for model, parameters in zoo]
    cells.append(_sustained(cell("smollm2-135m", "q4_0", 1.35e8, device=PHONE, speed=0.02, energy=True)))
    cells += [cell("smollm2-135m", q, 1.35e8, device=PHONE, speed=0.02, energy=True) for q in ("q4_0", "q8_0")]
    for board, speed in zip(BOARDS, (0.35, 0.12, 0.25), strict=True):
        cells += [
            cell(model, "q4_0", p, device=board, speed=speed, energy=True)
            for model, p in (("smollm2-135m", 1.35e8), zoo[0])
        ]
    cells += [
        lost("llama-2-7b", "q4_0", "skipped", "needs 4.3 GB of memory, the device has 3.9 GB"),
        lost("llama-2-13b", "q4_K", "failed", "out-of-memory: the runner was killed"),
        replace(
            cell("gemma-7b", "q4_0", 8.54e9, synthetic=True),
            state="invalid",
            reason="INVALID: another process took 0.7 cores",
            metrics={},
            turns=(),
        ),
    ]
    cells += engines(HOST) + engines(PHONE, speed=0.02)
    left_out = StudyEntry(manifest="7b.yaml", campaign=None, reason="no cell fits into 3.9 GB of memory")
    made = content(cells)
    run = [StudyEntry(manifest="paper.yaml", campaign=one.id) for one in made.campaigns]
    study = StudyDocument(name="paper", entries=[*run, left_out])
    return replace(made, claims=STUDY.sections(made.results), study=study)


def engines(device: Device, speed: float = 1.0) -> list[CellResult]:
    """A model under two engines, which have two schemes in common and part in a token of one."""
    first, second = (("llama.cpp", NEW, 0), ("onnxruntime", "1.29.0", 1))
    made = [engine(q, *first, device=device, speed=speed) for q in ("q4_0", "q8_0")]
    made += [engine(q, *second, device=device, speed=speed * 0.8) for q in ("q4_0", "q8_0", "int4")]
    made[2] = replace(made[2], answers=answers([[7, 8, 9], [7, 8]], [[1, 3]]))
    return made


def engine(
    quantization: str, framework: str, release: str, rank: int, *, device: Device = HOST, speed: float = 1.0
) -> CellResult:
    """A cell of an engine, with its greedy answers and what it says of itself."""
    codes = {"int4": "q4_0"}.get(quantization, quantization)
    base = cell("smollm2-135m", codes, 1.35e8, device=device, release=release, workload="chat", speed=speed)
    spins, cache = {"effective.spinning": True} if rank else {}, "f32/f32" if rank else "f16/f16"
    return replace(
        base,
        framework=framework,
        quantization=quantization,
        cell=f"smollm2-135m/{quantization}/{framework}/{device.name}/chat",
        rank=rank,
        model_bytes=int((base.model_bytes or 0) * (1.14 if rank else 1)),
        metrics={**base.metrics, "load_s": spread(0.1 + 0.4 * rank)},
        threads=2,
        vocabulary=49_152,
        options={"sampling.greedy": "true", "context": 512},
        ran_as={"effective.cache_types": cache, **spins},
        answers=answers([[7, 8, 9], [7, 8]], [[1, 2]]),
    )


def answers(*conversations: Sequence[Sequence[int]]) -> tuple[Answer, ...]:
    """Answers of these tokens, by conversation and turn; each token is a word."""
    return tuple(
        Answer(c, i, tuple(ids), " ".join(f"word-{id}" for id in ids))
        for c, turns in enumerate(conversations)
        for i, ids in enumerate(turns)
    )


def lost(model: str, quantization: str, state: str, reason: str) -> CellResult:
    """A cell without results."""
    base = cell(model, quantization, 1e9)
    changed = replace(
        base, reason=reason, metrics={}, unavailable={}, turns=(), parameters=None, model_bytes=None, kv_bytes=None
    )
    return replace(changed, state="failed" if state == "failed" else "skipped")


def results(cells: Sequence[CellResult]) -> Results:
    """Cells with the campaigns that they name."""
    return Results(tuple(cells), {id: id.split("-")[1] for id in dict.fromkeys(one.campaign for one in cells)})


def content(cells: Sequence[CellResult]) -> Content:
    """A content of cells; their campaigns belong to no study."""
    made = results(cells)
    return Content(made, [_document(id, cells) for id in made.names])


def _document(id: str, cells: Sequence[CellResult]) -> CampaignDocument:
    entries = [
        CellEntry.model_construct(
            id=one.cell,
            model=one.model,
            quantization=one.quantization,
            framework=one.framework,
            release=one.release,
            commit="c" * 40,
            target=one.device.name,
            workload=one.workload,
            isa="x86_64_v3",
            model_digest="d" * 64,
            model_bytes=one.model_bytes or 0,
            bundle_digest="e" * 64,
            runner_digest="f" * 64,
            source_digest="0" * 64,
            params={},
        )
        for one in cells
        if one.campaign == id and one.state != "skipped"
    ]
    return CampaignDocument.model_construct(
        id=id,
        name=id.split("-")[1],
        description="",
        started_wall_ns=1_795_838_400_000_000_000,
        manifest_digest="a" * 64,
        plan_digest="b" * 64,
        meltrepro_version="0.1.0",
        virtual=False,
        tracking=TrackingEntry(experiment="e", uri=None, enabled=False),
        engine="docker",
        only=[],
        seed=1,
        order=Order.interleaved,
        cells=entries,
        skipped=[],
    )
