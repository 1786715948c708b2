"""For every finding cells that decide it and cells that cannot, and how it is looked up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from meltrepro.report.results import CellResult, TurnResult
from meltrepro.studies.melt.findings.model import Finding
from meltrepro.studies.melt.findings.registry import DEFINITIONS, find
from tests.support.results import BOARD, HOST, OTHER, PHONE, cell, operators, scores, table, turns

ENERGY = "energy_per_token_j"
CHARGE = {
    "prefill_charge_mah": 20.0,
    "generation_charge_mah": 80.0,
    "turns": 10.0,
    "prompt_tokens": 200.0,
    "generated_tokens": 210.0,
    "prefill_tps": 10.0,
}
MICRO, LONG = turns([10.0] * 2, past=80), turns([10.0] * 2, past=800)


@dataclass(frozen=True)
class Case:
    """Cells by what they are to show."""

    holds: tuple[CellResult, ...]
    fails: tuple[CellResult, ...]
    lacks: tuple[CellResult, ...]
    missing: str
    """What the reason must name."""


def sizes(*speeds: float) -> tuple[CellResult, ...]:
    return tuple(cell(f"m{i}", speed=speed, size=10**9 * 2**i) for i, speed in enumerate(speeds))


def energies(*values: float) -> tuple[CellResult, ...]:
    return tuple(
        cell(f"m{i % 3}", f"q{4 + i // 3}_0", size=10**9 * (1 + i), metrics={ENERGY: value})
        for i, value in enumerate(values)
    )


def sustained(first: float, last: float, *, grow: int) -> tuple[TurnResult, ...]:
    return turns([first] * 16 + [last] * 16, grow=grow, n_gen=60)


def several(*conversations: list[float]) -> tuple[TurnResult, ...]:
    return tuple(turn for i, speeds in enumerate(conversations) for turn in turns(speeds, conversation=i, n_gen=60))


def modes(*points: tuple[float, float]) -> tuple[CellResult, ...]:
    names = ("15W", "30W", "50W", "MAXN")
    return tuple(
        cell(device=replace(BOARD, power_mode=name), speed=speed, metrics={ENERGY: energy})
        for name, (speed, energy) in zip(names, points, strict=False)
    )


def powers(prefill: float, generation: float, **more: float) -> CellResult:
    return cell(metrics={"prefill_power_w": prefill, "generation_power_w": generation, **more})


def seven(quantization: str, **fields: Any) -> CellResult:
    return cell("llama-2-7b", quantization, parameters=6.74e9, **fields)


SLOW_START = [10.0, 9.0, 8.1, 7.0, 6.2]
FLAT = [10.0, 10.1, 9.9, 10.0, 10.05]
CASES = {
    "F1": Case(sizes(40, 20, 10), sizes(12, 10, 11), sizes(40, 20), "3 models"),
    "F2": Case(
        (cell(speed=10, metrics={"prefill_tps": 100}, turns=turns([10.0, 12.0], prefill=90.0)),),
        (cell(speed=10, metrics={"prefill_tps": 15}, turns=turns([10.0, 12.0], prefill=15.0)),),
        (cell(speed=10, metrics={"prefill_tps": 100}, turns=turns([10.0], n_prompt=3)),),
        "16 tokens",
    ),
    "F3": Case(
        (cell(speed=10), cell(speed=30, device=OTHER)),
        (cell(speed=10), cell(speed=12, device=OTHER)),
        (cell(speed=10), cell("n", speed=12, device=OTHER)),
        "two devices",
    ),
    "F4": Case(
        (cell(quantization="q3_K", speed=10, size=300), cell(quantization="q4_K", speed=10, size=400)),
        (cell(quantization="q3_K", speed=20, size=300), cell(quantization="q4_K", speed=10, size=400)),
        (cell(quantization="q3_K", speed=10, size=398), cell(quantization="q4_K", speed=10, size=400)),
        "3 and in 4 bits",
    ),
    "F5": Case(
        (seven("q4_0", size=3_800_000_000), seven("f16", state="skipped", cause="memory")),
        (seven("q4_0", size=3_800_000_000), seven("f16", size=13_480_000_000)),
        (cell("small", parameters=1e8, size=60_000_000),),
        "larger one",
    ),
    "F6": Case(
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 580), ("q3_K", 500))),
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 601), ("q3_K", 602))),
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 580))),
        "4 bits and in 3",
    ),
    "F7": Case(
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(400)),
            cell("l", "q4_0", size=1100, parameters=2000, scores=scores(500)),
        ),
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(500)),
            cell("l", "q4_0", size=1100, parameters=2000, scores=scores(400)),
        ),
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(400)),
            cell("l", "q4_0", size=2100, parameters=4000, scores=scores(500)),
        ),
        "a fifth",
    ),
    "F8": Case(
        (cell(operators=operators(ffn_up=0.6, attn_q=0.3, kq=0.05)),),
        (cell(operators=operators(ffn_up=0.5, kq=0.4)),),
        (cell(speed=10),),
        "operators",
    ),
    "F9": Case(
        (
            cell(workload="short", operators=operators(ffn_up=0.9, kq=0.05), turns=MICRO),
            cell(workload="long", operators=operators(ffn_up=0.7, kq=0.2), turns=LONG),
        ),
        (cell(workload="short", operators=operators(ffn_up=0.6, kq=0.3), turns=MICRO),),
        (cell(workload="long", operators=operators(ffn_up=0.7, kq=0.2), turns=LONG),),
        "256 tokens",
    ),
    "F10": Case(energies(1, 2, 3, 4), energies(4, 3, 2, 1), (cell(speed=10),), "no power"),
    "F11": Case(
        (cell(speed=10, metrics={ENERGY: 2.0}), cell(release="2024", speed=5, metrics={ENERGY: 3.0})),
        (cell(speed=10, metrics={ENERGY: 3.0}), cell(release="2024", speed=5, metrics={ENERGY: 2.0})),
        (cell(speed=10, metrics={ENERGY: 2.0}),),
        "two frameworks",
    ),
    "F12": Case(
        (cell(device=PHONE, metrics=CHARGE),),
        (cell(device=PHONE, metrics={**CHARGE, "generation_charge_mah": 8000.0}),),
        (cell(device=replace(PHONE, battery_mah=None), metrics=CHARGE),),
        "capacity",
    ),
    "F13": Case(
        (cell(device=PHONE, speed=1, metrics=CHARGE),),
        (cell(device=PHONE, speed=1, metrics={**CHARGE, "generation_charge_mah": 1.0, "prefill_charge_mah": 1.0}),),
        (cell(device=PHONE, speed=1),),
        "current",
    ),
    "F14": Case(
        (cell(speed=10, turns=sustained(20, 10, grow=0)),),
        (cell(speed=10, turns=sustained(20, 20, grow=100)),),
        (cell(speed=10, turns=sustained(20, 10, grow=100)),),
        "context alone",
    ),
    "F15": Case(
        (cell(device=PHONE, metrics={"temperature_max_c": 47.9}),),
        (cell(device=PHONE, metrics={"temperature_max_c": 38.0}),),
        (cell(device=HOST, metrics={"temperature_max_c": 90.0}),),
        "a phone",
    ),
    "F16": Case(
        (cell(device=PHONE, speed=10), cell(device=PHONE, speed=9.7, accelerated=True, workload="chat")),
        (cell(device=PHONE, speed=10), cell(device=PHONE, speed=20, accelerated=True)),
        (cell(device=HOST, speed=10), cell(device=HOST, speed=9.7, accelerated=True)),
        "Android",
    ),
    "F17": Case(
        (cell(speed=10), cell(quantization="q4f16_1", framework="mlc", speed=15)),
        (cell(speed=10), cell(quantization="q4f16_1", framework="mlc", speed=10.2)),
        (cell(speed=10), cell(speed=30, release="2024")),
        "two frameworks",
    ),
    "F18": Case(
        (cell(device=PHONE, speed=5, metrics={ENERGY: 2.0}), cell(device=BOARD, speed=15, metrics={ENERGY: 1.5})),
        (cell(device=PHONE, speed=5, metrics={ENERGY: 2.0}), cell(device=BOARD, speed=15, metrics={ENERGY: 2.5})),
        (cell(device=PHONE, speed=5), cell(device=HOST, speed=50)),
        "Jetson",
    ),
    "F19": Case(
        modes((5, 3.0), (9, 2.0), (11, 2.5)),
        modes((5, 3.0), (9, 2.5), (11, 2.0)),
        modes((5, 3.0), (9, 2.0)),
        "3 power modes",
    ),
    "F20": Case(
        (cell(speed=8, turns=several(SLOW_START, SLOW_START)),),
        (cell(speed=10, turns=several(FLAT, FLAT)),),
        (cell(speed=10, turns=several(SLOW_START[:2], SLOW_START[:2])),),
        "4 turns",
    ),
    "F21": Case(
        (powers(8, 5, idle_power_w=1),),
        (powers(5.1, 5, idle_power_w=1),),
        (cell(speed=10),),
        "no power",
    ),
    "F22": Case(
        (*(cell(m, speed=1) for m in "ab"), cell("c", "f16", state="skipped", cause="memory", reason="needs 9 GB")),
        tuple(cell(m, speed=1) for m in "abc"),
        (*(cell(m, speed=1) for m in "ab"), cell("c", state="skipped", cause="target")),
        "3 models",
    ),
}


def found(id: str, *cells: CellResult, virtual_only: bool = False) -> Finding:
    return find(next(one for one in DEFINITIONS if one.id == id), table(*cells), virtual_only=virtual_only)
