"""Weights in the files of MLC: `tensor-cache.json` says which tensor lies where in `params_shard_0.bin` and its like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.prebuilt.codes import Array

INDEX = "tensor-cache.json"
_LARGEST = 32 << 20
"""Of a file, unless it holds one tensor that is larger."""


class Shards:
    """Writes tensors one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[dict[str, Any]] = []
        self._count = 0

    def add(self, name: str, tensor: Array) -> None:
        content = np.ascontiguousarray(tensor)
        if not self._shards or self._shards[-1]["nbytes"] + content.nbytes > _LARGEST:
            self._shards.append(
                {
                    "dataPath": f"params_shard_{len(self._shards)}.bin",
                    "format": "raw-shard",
                    "nbytes": 0,
                    "records": [],
                }
            )
        shard = self._shards[-1]
        record = {"name": name, "shape": list(content.shape), "dtype": content.dtype.name, "format": "raw"}
        shard["records"].append({**record, "nbytes": content.nbytes, "byteOffset": shard["nbytes"]})
        shard["nbytes"] += content.nbytes
        self._count += 1
        with (self._folder / shard["dataPath"]).open("ab") as file:
            content.tofile(file)

    def finish(self) -> None:
        index = {"metadata": {"ParamSize": self._count}, "records": self._shards}
        (self._folder / INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")


def check(folder: Path) -> None:
    """Raise `ModelError` where a file of weights is missing or cut off."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sizes = {shard["dataPath"]: shard["nbytes"] for shard in index["records"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{INDEX} is damaged: {error}") from error
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise ModelError(f"{name} is missing or cut off: expected {size} bytes")
