"""Cosines and sines by which engines rotate queries and keys, of every position that a model was trained for."""

from __future__ import annotations

import math

import numpy as np

from meltrepro.frameworks.prebuilt.codes import Array, GgufNumbers
from meltrepro.frameworks.prebuilt.llama import FACTORS, LlamaShape


def rotations(shape: LlamaShape, source: GgufNumbers) -> tuple[Array, Array]:
    """Both as [positions, half a head], by the C library: numpy's own differ from one CPU to the next."""
    half = shape.head // 2
    steps = [shape.base ** (-2 * i / shape.head) for i in range(half)]
    if FACTORS in source.tensors:
        steps = [step / float(factor) for step, factor in zip(steps, source.numbers(FACTORS), strict=True)]
    angles = [position * step for position in range(shape.context) for step in steps]
    cosines, sines = (np.fromiter(map(each, angles), np.float32, len(angles)) for each in (math.cos, math.sin))
    return cosines.reshape(shape.context, half), sines.reshape(shape.context, half)
