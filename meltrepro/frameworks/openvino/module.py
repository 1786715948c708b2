"""OpenVINO: its pinned wheel, and how a model comes from GGUF codes or a checkpoint.

A wheel holds the library with a plug-in for the CPUs of a machine, which looks itself which instructions a CPU has. Plug-ins for GPUs and
NPUs stay in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from meltrepro.frameworks.base import AS_IS, Variant
from meltrepro.frameworks.openvino.options import OpenVinoOptions
from meltrepro.frameworks.prebuilt import glibc
from meltrepro.frameworks.prebuilt.module import Scheme, Wheel, WheelEngine, WheelFramework, conversion

_VERSION, _BUILD, _ABI = "2026.4.1", 22982, 2641
_INFO = f"openvino-{_VERSION}.dist-info/licenses"


def _libraries(*names: str) -> Mapping[str, str]:
    return {name: f"openvino/libs/{name}" for name in names}


_WHEEL = Wheel(
    "openvino",
    _VERSION,
    {
        "x86_64": f"openvino-{_VERSION}-{_BUILD}-cp311-cp311-manylinux_2_28_x86_64.whl",
        "aarch64": f"openvino-{_VERSION}-{_BUILD}-cp311-cp311-manylinux_2_35_aarch64.whl",
    },
    {
        "x86_64": "2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf",
        "aarch64": "bea1eb3733c34ef331adc945da0ccda5937865031139073663be84c517ffda22",
    },
    libraries=_libraries(
        *(f"libopenvino{part}.so.{_ABI}" for part in ("", "_c", "_ir_frontend")),
        *("libtbb.so.12", "libtbbmalloc.so.2", "libtbbbind_2_5.so.3", "libhwloc.so.15"),
    ),
    own_libraries={
        "x86_64": _libraries("libopenvino_intel_cpu_plugin.so"),
        "aarch64": _libraries("libopenvino_arm_cpu_plugin.so"),
    },
    licenses={
        "openvino": f"{_INFO}/LICENSE",
        "openvino-third-party": f"{_INFO}/licensing/runtime-third-party-programs.txt",
        "onednn-third-party": f"{_INFO}/licensing/onednn_third-party-programs.txt",
        "onetbb-third-party": f"{_INFO}/licensing/onetbb_third-party-programs.txt",
    },
)


def _convert(source: Path, folder: Path) -> None:
    from meltrepro.frameworks.openvino import convert  # with numpy, which takes a while to load

    convert.convert(source, folder)


_KEPT = conversion("openvino-2", _convert)
ENGINE = WheelEngine(
    "openvino",
    "OpenVINO",
    "https://github.com/openvinotoolkit/openvino",
    "Apache-2.0",
    date="2026-10-01",
    commit="e213a147257",
    wheels=[_WHEEL],
    variants=[
        Variant("x86_64", "x86_64", "x86_64-linux-gnu", glibc.VERSION),
        Variant("armv8", "armv8", "aarch64-linux-gnu", glibc.VERSION, frozenset({"asimd"})),
    ],
    schemes={
        "f32": Scheme("f32", 32.0, [_KEPT]),
        "f16": Scheme("f16", 16.0, [_KEPT]),
        "q8_0": Scheme("q8_0", 8.5, [_KEPT]),
        "q4_0": Scheme("q4_0", 4.8, [_KEPT]),
        AS_IS: Scheme(AS_IS, 16.0, [_KEPT]),
    },
    files=["model.xml", "model.bin"],
)


class OpenVino(WheelFramework):
    """OpenVINO behind the seam of frameworks."""

    options: type[BaseModel] = OpenVinoOptions

    def cache_bits(self, options: Any) -> float:
        return {"f32": 32.0, "f16": 16.0, "u8": 8.0}[options.kv_cache_precision]

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        return {
            "inference_precision": options.inference_precision,
            "kv_cache_precision": options.kv_cache_precision,
            "dynamic_quantization_group_size": options.dynamic_quantization_group_size,
        }


FRAMEWORK = OpenVino(ENGINE)
