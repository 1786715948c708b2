"""Tables of results made by hand, for rules whose verdict is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from meltrepro.measure.operators import Breakdown, Share
from meltrepro.report.results import CellResult, Device, Results, Score, TurnResult
from meltrepro.stats.summary import summarize
from meltrepro.studies.melt.checks import standard_error

HOST = Device("host", "host", "a laptop", memory_bytes=8 * 10**9, virtual=False, id="host-1")
OTHER = Device("other", "host", "another", memory_bytes=16 * 10**9, virtual=False, id="host-2")
PHONE = Device("phone", "android", "a phone", 8 * 10**9, virtual=False, battery_mah=5000, id="android-1")
BOARD = Device("board", "jetson", "a board", 8 * 10**9, virtual=False, power_mode="15W", id="jetson-1")


def virtual(device: Device) -> Device:
    return replace(device, virtual=True, id=f"virtual-{device.id}")


def cell(
    model: str = "m",
    quantization: str = "q4_0",
    *,
    device: Device = HOST,
    speed: float | None = None,
    size: int | None = None,
    metrics: Mapping[str, float] | None = None,
    workload: str = "chat",
    release: str = "2026",
    **fields: Any,
) -> CellResult:
    """A measured cell of a device with one repetition; `speed` is its generation_tps, `size` that of its file."""
    values = {**(metrics or {}), **({"generation_tps": speed} if speed is not None else {})}
    framework = fields.pop("framework", "llama.cpp")
    return CellResult(
        campaign="c",
        cell=f"{model}/{quantization}/{framework}-{release}/{device.name}/{workload}",
        state=fields.pop("state", "measured"),
        reason=fields.pop("reason", None),
        device=device,
        framework=framework,
        release=release,
        model=model,
        quantization=quantization,
        workload=workload,
        model_bytes=size,
        metrics={name: summarize([value]) for name, value in values.items()},
        **fields,
    )


def turns(
    speeds: Sequence[float],
    *,
    conversation: int = 0,
    n_prompt: int = 20,
    n_gen: int = 20,
    grow: int = 40,
    past: int = 40,
    prefill: float = 200.0,
    began_s: float = 0.0,
) -> tuple[TurnResult, ...]:
    """Turns of one conversation with these speeds, without pauses; each adds `grow` tokens to the context."""
    found = []
    for index, speed in enumerate(speeds):
        n_past = past + grow * index
        found.append(
            TurnResult(0, conversation, index, began_s, n_prompt, n_gen, n_past, prefill, speed, n_prompt, n_gen - 1)
        )
        began_s += n_prompt / prefill + (n_gen - 1) / speed
    return tuple(found)


def operators(**shares: float) -> Mapping[Any, Breakdown]:
    """A profile of generation by module: `ffn_up`, `kq`, and so on; all are MUL_MAT."""
    found = tuple(Share("MUL_MAT", module, 10, round(share * 1e9), share, share) for module, share in shares.items())
    return {"generation": Breakdown("generation", 10, 10**9, found, sum(shares.values()))}


def scores(k: int, n: int = 1000, tasks: Sequence[str] = ("arc_easy", "winogrande")) -> tuple[Score, ...]:
    """The same number of right answers in every task, but for one more from task to task."""
    return tuple(
        Score(task, "acc", (k + i) / n, standard_error((k + i) / n, n), n, k + i) for i, task in enumerate(tasks)
    )


def table(*cells: CellResult) -> Results:
    return Results(cells, {"c": "made by hand"})
