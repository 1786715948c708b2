"""The numbers that codes stand for, as engines define it."""

from __future__ import annotations

import numpy as np

from meltrepro.frameworks.prebuilt.codes import Array, Codes


def values(codes: Codes) -> Array:
    found = codes.codes
    if codes.bits == 4:
        found = np.stack([found & 15, found >> 4], axis=-1).reshape(*found.shape[:2], -1)
    numbers: Array = (found.astype(np.float32) - (1 << codes.bits - 1)) * codes.scales[..., None]
    return numbers.reshape(codes.rows, codes.columns)
