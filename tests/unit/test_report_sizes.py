"""The section that compares models of different size."""

from __future__ import annotations

from typing import Any

import pytest

from meltrepro.report.figures import sizes as figures
from meltrepro.report.results import CellResult
from meltrepro.report.tables.sizes import sizes
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
