"""OpenVINO's files: a graph that holds together, and weights that stand for the source's numbers in the order that its rotations want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import gguf as library
import numpy as np
import pytest
from pydantic import ValidationError

from meltrepro.frameworks.base import Variant
from meltrepro.frameworks.openvino.convert import convert
from meltrepro.frameworks.openvino.module import FRAMEWORK
from meltrepro.frameworks.openvino.options import OpenVinoOptions
from meltrepro.frameworks.prebuilt.codes import Array
from meltrepro.testing.frameworks import DEVICES
from tests.support.llamas import HEADS, KV_HEADS, llama

RELEASE = FRAMEWORK.releases()["2026.4.1"]
_TYPES = {"f32": "<f4", "f16": "<f2", "u8": "u1", "u4": "u1", "i32": "<i4", "i64": "<i8"}


@dataclass
class Layer:
    kind: str
    data: Mapping[str, str]
    inputs: dict[int, str]
    """Names by port."""


@dataclass
class Model:
    layers: dict[str, Layer]
    constants: bytes

    def constant(self, name: str) -> Array:
        data = self.layers[name].data
        begin, size = int(data["offset"]), int(data["size"])
        found = np.frombuffer(self.constants[begin : begin + size], _TYPES[data["element_type"]])
        if data["element_type"] == "u4":
            found = np.stack([found & 15, found >> 4], axis=-1).reshape(-1)[: int(np.prod(self.sizes(name)))]
        return found.reshape(self.sizes(name))

    def sizes(self, name: str) -> tuple[int, ...]:
        return tuple(int(each) for each in self.layers[name].data["shape"].split(",") if each)

    def matrix(self, name: str) -> Array:
        """The numbers of a matrix of codes, as its nodes compute them."""
        parts = [self.constant(f"{name}.{part}").astype(np.float32) for part in ("codes", "middle.code", "scales")]
        found: Array = (parts[0] - parts[1]) * parts[2]
        return found.reshape(found.shape[0], -1)


def read(folder: Path) -> Model:
    net = ElementTree.parse(folder / "model.xml").getroot()
    by_number = {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}
    layers = {}
    for layer in by_number.values():
        data = layer.find("data")
        assert data is not None and layer.attrib["name"] not in layers
        layers[layer.attrib["name"]] = Layer(layer.attrib["type"], data.attrib, {})
    for edge in net.iterfind("edges/edge"):
        begin, end = (by_number[edge.attrib[f"{side}-layer"]] for side in ("from", "to"))
        for layer, place, port in ((begin, "output", "from-port"), (end, "input", "to-port")):
            assert edge.attrib[port] in {each.attrib["id"] for each in layer.iterfind(f"{place}/port")}
        layers[end.attrib["name"]].inputs[int(edge.attrib["to-port"])] = begin.attrib["name"]
    return Model(layers, (folder / "model.bin").read_bytes())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.gguf"


def converted(source: Path, content: bytes) -> Model:
    source.write_bytes(content)
    convert(source, source.parent / "model")
    return read(source.parent / "model")


@pytest.mark.parametrize("kind", ["Q4_0", "F16"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_graph_holds_together(source: Path, kind: str, tied: bool) -> None:
    model = converted(source, llama(kind, tied=tied))
    end = 0
    for layer in model.layers.values():
        assert sorted(layer.inputs) == list(range(len(layer.inputs)))
        if layer.kind == "Const":
            begin = int(layer.data["offset"])
            assert begin % 64 == 0 and begin >= end
            end = begin + int(layer.data["size"])
    assert end == len(model.constants)
    kinds = [layer.kind for layer in model.layers.values()]
    assert kinds.count("MatMul") == 2 * 7 + 1
    assert kinds.count("ScaledDotProductAttention") == 2
    assert kinds.count("ReadValue") == kinds.count("Assign") == 4
    used = {name for layer in model.layers.values() for name in layer.inputs.values()}
    ends = {name for name, layer in model.layers.items() if layer.kind in ("Result", "Assign")}
    assert used | ends == model.layers.keys(), "nothing is there that nobody uses"


@pytest.mark.parametrize(("kind", "scales"), [("Q4_0", "f16"), ("Q8_0", "f16"), ("Q6_K", "f32")])
def test_codes_stand_for_the_sources_numbers(source: Path, kind: str, scales: str) -> None:
    model = converted(source, llama(kind))
    theirs = {each.name: each for each in library.GGUFReader(source).tensors}
    for name in ("blk.0.ffn_down", "blk.1.attn_v", "blk.0.attn_q", "blk.1.attn_k", "token_embd"):
        tensor = theirs[f"{name}.weight"]
        wanted = library.quants.dequantize(tensor.data, tensor.tensor_type)
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.partition(".")[2].partition(".")[2])
        assert np.array_equal(model.matrix(name), wanted if heads is None else in_halves(wanted, heads))
        assert model.layers[f"{name}.scales"].data["element_type"] == scales


def in_halves(rows: Array, heads: int) -> Array:
    """Of each head first the rows of all pairs' first halves, then of their second."""
    size = len(rows) // heads
    order = [head * size + row for head in range(heads) for row in (*range(0, size, 2), *range(1, size, 2))]
    found: Array = rows[order]
    return found


def test_floats_keep_their_bits(source: Path) -> None:
    model = converted(source, llama("F16"))
    theirs = {each.name: each for each in library.GGUFReader(source).tensors}
    assert np.array_equal(model.constant("blk.0.ffn_up.weight"), theirs["blk.0.ffn_up.weight"].data)
    assert np.array_equal(model.constant("blk.0.attn_q.weight"), in_halves(theirs["blk.0.attn_q.weight"].data, HEADS))


def test_options_are_in_the_request() -> None:
    variant = FRAMEWORK.variant(OpenVinoOptions(), RELEASE, DEVICES[0])
    assert isinstance(variant, Variant)
    assert FRAMEWORK.request(OpenVinoOptions(), variant) == {
        "inference_precision": "f32",
        "kv_cache_precision": "f16",
        "dynamic_quantization_group_size": 32,
    }
    options = OpenVinoOptions(inference_precision="bf16", kv_cache_precision="u8", dynamic_quantization_group_size=0)
    assert list(FRAMEWORK.request(options, variant).values()) == ["bf16", "u8", 0]
    with pytest.raises(ValidationError):
        OpenVinoOptions.model_validate({"dynamic_quantization_group_size": -1})


def test_each_machine_gets_the_plug_in_for_its_cpus() -> None:
    (wheel,) = FRAMEWORK.engine.wheels
    plugins = {m: [n for n in wheel.contents(m) if "cpu_plugin" in n] for m in ("x86_64", "aarch64")}
    assert plugins == {
        "x86_64": ["lib/libopenvino_intel_cpu_plugin.so"],
        "aarch64": ["lib/libopenvino_arm_cpu_plugin.so"],
    }
