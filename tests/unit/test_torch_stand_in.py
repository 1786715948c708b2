"""The stand-in for torch: the same bits as torch where it answers, and no answer where it does not know."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro import resources
from tests.support.checkpoints import bfloat16


def load(path: Path) -> ModuleType:
    """The module as converters import it, under another name, so that nobody here takes it for torch."""
    spec = importlib.util.spec_from_file_location("stand_in_for_torch", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


torch: Any = load(resources.images() / "llama.cpp" / "converter" / "torch" / "__init__.py")

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**127, min_value=-(2.0**127))


def tensor(values: list[float]) -> Any:
    return torch.from_numpy(np.frombuffer(bfloat16(np.array(values, "<f4")), "u1")).view(torch.bfloat16)


@given(bits=st.integers(0, 0xFFFF))
def test_every_bfloat16_is_the_float32_with_the_same_upper_half(bits: int) -> None:
    wide = torch.from_numpy(np.array([bits], "<u2").view("u1")).view(torch.bfloat16).to(torch.float32).numpy()
    assert wide.view("<u4")[0] == bits << 16


@given(values=st.lists(FLOATS, min_size=1, max_size=5))
def test_sums_in_bfloat16_are_rounded_to_the_nearest_even(values: list[float]) -> None:
    begin = tensor(values)
    got = (begin + 1).to(torch.float32).numpy()
    exact = begin.to(torch.float32).numpy().astype(np.float64) + 1
    for value, wanted in zip(got, exact.astype(np.float32), strict=True):
        bits = int(wanted.view("<u4"))
        low, high = bits & 0xFFFF0000, (bits & 0xFFFF0000) + 0x10000
        middle = low + 0x8000
        nearest = low if bits < middle or (bits == middle and not low & 0x10000) else high
        assert int(value.view("<u4")) == nearest


def test_half_way_goes_to_the_even_number() -> None:
    """1 + 2^-8 is half-way between 1 and the next bfloat16; 1 + 3 * 2^-8 between that one and its next."""
    assert (tensor([2**-8]) + 1).to(torch.float32).numpy()[0] == 1
    assert (tensor([3 * 2**-8]) + 1).to(torch.float32).numpy()[0] == 1 + 4 * 2**-8


def test_shapes_follow_numpy_and_meta_tensors_follow_shapes() -> None:
    real = torch.from_numpy(np.arange(24, dtype="<f4")).reshape(2, 3, 4)
    meta = torch.empty(size=(2, 3, 4), dtype=torch.float32, device="meta")
    for each in (real, meta):
        assert each.swapaxes(1, 2).shape == each.transpose(1, 2).shape == (2, 4, 3)
        assert each.reshape((6, 4)).shape == each.view(6, 4).shape == (6, 4)
        assert each.unsqueeze(0).shape == (1, 2, 3, 4) and each.unsqueeze(0).squeeze().shape == (2, 3, 4)
        assert (each.dim(), each.size(1), each.numel(), (each + 1).shape) == (3, 3, 24, (2, 3, 4))
    assert meta.to(torch.float16).dtype is torch.float16
    np.testing.assert_array_equal(real.swapaxes(0, 2).numpy(), np.arange(24).reshape(2, 3, 4).swapaxes(0, 2))


def test_a_meta_tensor_of_any_size_takes_no_memory() -> None:
    huge = torch.empty(size=(1 << 20, 1 << 20), dtype=torch.bfloat16, device="meta")
    assert (huge.to(torch.float32) + 1).reshape(1 << 40).shape == (1 << 40,)


def test_what_it_does_not_know_ends_the_conversion() -> None:
    numbers = torch.from_numpy(np.zeros(2, "<f4"))
    with pytest.raises(AttributeError, match="stand-in for torch has no arange: this kind of model"):
        _ = torch.arange
    with pytest.raises(NotImplementedError, match="widens floats to float32 only"):
        numbers.to(torch.float16)
    with pytest.raises(NotImplementedError, match="widens floats"):
        torch.from_numpy(np.zeros(2, "u1")).to(torch.float32)
    with pytest.raises(TypeError, match="bfloat16"):
        tensor([1.0]).numpy()
    with pytest.raises(NotImplementedError, match="meta tensors only"):
        torch.empty(size=(1,), dtype=torch.float32, device="cpu")
