"""ONNX Runtime's own codes and options; what it has in common with other engines is in test_prebuilt.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from meltrepro.frameworks.base import Variant
from meltrepro.frameworks.onnxruntime.convert import convert, quantized
from meltrepro.frameworks.onnxruntime.module import FRAMEWORK
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.testing.frameworks import DEVICES
from tests.support.codes import values
from tests.support.llamas import llama

RELEASE = FRAMEWORK.releases()["1.29.0"]


@pytest.mark.parametrize(("bits", "most"), [(4, 0.13), (8, 0.008)])
def test_codes_of_its_own_are_near_the_numbers(bits: int, most: float) -> None:
    numbers = np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)
    numbers[0] = 0
    found = values(quantized(numbers, bits))
    assert np.abs(found - numbers).max() <= most * np.abs(numbers).max()
    assert np.array_equal(found[0], numbers[0])


@pytest.mark.parametrize(("kind", "bits"), [("F16", 4), ("F32", 8)])
def test_codes_of_its_own_are_the_same_bytes(tmp_path: Path, kind: str, bits: int) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(llama(kind))
    found = []
    for name in ("one", "two"):
        convert(source, tmp_path / name, bits)
        FRAMEWORK.check_model(tmp_path / name)
        found.append({path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]


def test_schemes_that_differ_have_steps_of_other_names() -> None:
    steps = {name: scheme.steps[-1].name for name, scheme in FRAMEWORK.engine.schemes.items()}
    assert {steps[name] for name in ("int4", "int8", "q4_0")} == {"onnx-int4-1", "onnx-int8-1", "onnx-1"}


def test_options_are_in_the_request() -> None:
    options = OnnxOptions(spinning=False, graph_optimization="basic")
    variant = FRAMEWORK.variant(options, RELEASE, DEVICES[0])
    assert isinstance(variant, Variant)
    assert FRAMEWORK.request(options, variant) == {"graph_optimization": "basic", "spinning": False}
