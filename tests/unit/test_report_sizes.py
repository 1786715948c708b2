"""The section that compares models of different size."""

from __future__ import annotations

from typing import Any

import pytest

from meltrepro.report.figures import sizes as figures
from meltrepro.report.results import CellResult
from meltrepro.report.tables.sizes import sizes, then_and_now
from meltrepro.report.values import Absent, Table
from tests.support.results import HOST, OTHER, cell, operators
from tests.support.results import table as results


def sized(model: str, weights: float, speed: float, **fields: Any) -> CellResult:
    return cell(model, speed=speed, size=round(weights / 2), parameters=weights, **fields)


def column(table: Table, key: str) -> list[Any]:
    index = [each.key for each in table.columns].index(key)
    return [row[index] for row in table.rows]


def test_models_stand_from_the_smallest_to_the_largest() -> None:
    large = sized(
        "large", 4e9, 10, context=1024, kv_bytes=1024 * 10**5, operators=operators(kq=0.2, kqv=0.1, ffn_up=0.6)
    )
    small = sized("small", 1e9, 40, metrics={"energy_per_token_j": 0.5})
    table = sizes(results(large, small))
    assert column(table, "model") == ["small", "large"]
    assert column(table, "weights_1e9") == [1.0, 4.0]
    assert column(table, "read_gbps") == [pytest.approx(20), pytest.approx(20)]
    assert column(table, "kv_gb_per_1000")[1] == pytest.approx(0.1)
    assert isinstance(column(table, "kv_gb_per_1000")[0], Absent)
    assert column(table, "attention_share")[1] == pytest.approx(0.3)
    assert isinstance(column(table, "attention_share")[0], Absent)


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [sized("one", 1e9, 10)],
        [sized("one", 1e9, 10), sized("one", 1e9, 12, quantization="q8_0")],
        [sized("one", 1e9, 10), cell("unknown", speed=20)],
    ],
)
def test_one_size_is_no_comparison(cells: list[CellResult]) -> None:
    table = sizes(results(*cells))
    assert table.rows == ()
    assert table.reason is not None and table.reason.startswith("no two models of different size were measured")
    assert figures.sizes(results(*cells)).reason == table.reason


def test_a_panel_for_each_device_quantization_and_cost() -> None:
    cells = [
        sized(model, weights, 10, device=device, quantization=quantization, metrics={"energy_per_token_j": 1.0})
        for model, weights in (("small", 1e9), ("large", 2e9))
        for device in (HOST, OTHER)
        for quantization in ("q4_0", "q8_0")
    ]
    svg = figures.sizes(results(*cells)).svg
    assert svg is not None
    for title in ("q4_0, chat", "q8_0, chat"):
        assert svg.count(title) >= 4  # two devices, speed and energy


def test_sizes_of_different_quantizations_alone_are_only_in_the_table() -> None:
    found = results(sized("small", 1e9, 10), sized("large", 2e9, 10, quantization="q8_0"))
    assert len(sizes(found).rows) == 2
    assert figures.sizes(found).reason == "no quantization was measured in two sizes"


def test_a_model_of_today_stands_beside_the_nearest_of_then() -> None:
    old, new = "2024-02-27", "2026-10-01"
    energy = {"energy_per_token_j": 2.0}
    then = sized("then", 1.1e9, 10, release=old, metrics=energy, context=1000, kv_bytes=4 * 10**7)
    found = results(
        then,
        sized("bigger", 3e9, 4, release=old),
        sized("then", 1.1e9, 15, release=new),  # the same model: that is drift
        sized("now", 1.2e9, 20, release=new, metrics={"energy_per_token_j": 1.0}, context=500, kv_bytes=10**7),
        sized("huge", 9e9, 1, release=new),  # nothing of then is of its size
        sized("elsewhere", 1.2e9, 5, release=new, device=OTHER),
    )
    table = then_and_now(found)
    assert column(table, "then") == [f"then ({old})"]
    assert column(table, "now") == [f"now ({new})"]
    assert column(table, "generation_tps_ratio") == [2.0]
    assert column(table, "energy_per_token_j_ratio") == [0.5]
    assert column(table, "kv_per_1000_ratio") == [0.5]
    assert isinstance(column(table, "attention_share_ratio")[0], Absent)


def test_one_release_has_no_then() -> None:
    table = then_and_now(results(sized("small", 1e9, 10), sized("large", 2e9, 10)))
    assert table.rows == ()
    assert table.reason is not None and "older release" in table.reason
