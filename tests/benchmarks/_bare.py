"""A bare loop on an engine's own library, by its Python interface; `bare_loops` starts it, with whatever interpreter a wheel is for.

    python _bare.py ENGINE PACKAGES MODEL THREADS PROMPT GENERATED

Prints the tokens per second of prefill and of generation as JSON. Nothing but numpy and the engine is imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

Step = Callable[[Sequence[int], int], int]
"""Decodes tokens behind so many others; returns the likeliest next one."""


def onnxruntime(model: Path, facts: dict[str, int], threads: int, context: int) -> Callable[[], Step]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    np, ort = import_module("numpy"), import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])
    value, sizes = ort.OrtValue.ortvalue_from_numpy, (1, facts["kv_heads"], context, facts["head"])
    binding, kept = session.io_binding(), [np.zeros((1, 1, facts["vocabulary"]), np.float32)]  # whose memory is used
    binding.bind_ortvalue_output("logits", value(kept[0]))
    for i in range(facts["layers"]):
        for part in ("key", "value"):
            kept.append(np.zeros(sizes, np.float32))
            here = value(kept[-1])
            binding.bind_ortvalue_input(f"past.{i}.{part}", here)
            binding.bind_ortvalue_output(f"present.{i}.{part}", here)

    def step(tokens: Sequence[int], past: int) -> int:
        length = past + len(tokens)
        given = [np.array([tokens], np.int64), np.array([length - 1], np.int32), np.array(length, np.int32)]
        for name, each in zip(("tokens", "last", "length"), given, strict=True):
            binding.bind_cpu_input(name, each)
        session.run_with_iobinding(binding)
        return int(kept[0].argmax())

    return lambda: step


def openvino(model: Path, facts: dict[str, int], threads: int, context: int) -> Callable[[], Step]:
    np, ov = import_module("numpy"), import_module("openvino")
    core = ov.Core()
    usual = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
    usual |= {"ENABLE_CPU_PINNING": "NO", "ENABLE_HYPER_THREADING": "YES", "INFERENCE_PRECISION_HINT": "f32"}
    usual |= {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    compiled = core.compile_model(core.read_model(model / "model.xml"), "CPU", usual)

    def new() -> Step:
        request = compiled.create_infer_request()

        def step(tokens: Sequence[int], past: int) -> int:
            length = past + len(tokens)
            given = [[tokens], [range(past, length)], [length], [0]]
            for i, each in enumerate(given):
                request.set_input_tensor(i, ov.Tensor(np.array(each, np.int32)))
            request.infer()
            return int(request.get_output_tensor(0).data.argmax())

        return step

    return new


def mlc(model: Path, facts: dict[str, int], threads: int, context: int) -> Callable[[], Step]:
    os.environ |= {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}
    np, tvm = import_module("numpy"), import_module("tvm")
    machine = import_module("tvm.relax").VirtualMachine(tvm.runtime.load_module(str(model / "model.so")), tvm.cpu())
    index = json.loads((model / "tensor-cache.json").read_text())
    names = [record["name"] for shard in index["records"] for record in shard["records"]]
    tvm.get_global_func("vm.builtin.tensor_cache.load")(str(model), 1, 0)
    weights = tvm.get_global_func("vm.builtin.param_array_from_cache_by_name_unpacked")(*names)
    numbers = -(-context // 16) * 16 * facts["head"]
    cache = tvm.runtime.tensor(np.zeros((facts["layers"], 2, facts["kv_heads"], numbers), np.float32))
    functions = {True: machine["decode"], False: machine["prefill"]}

    def step(tokens: Sequence[int], past: int) -> int:
        given = tvm.runtime.tensor(np.array([tokens], np.int32))
        both = functions[len(tokens) == 1](given, cache, tvm.runtime.ShapeTuple([past]), weights)
        return int(both[0].numpy().argmax())

    return lambda: step


def main(engine: str, packages: str, model: str, *sizes: str) -> None:
    threads, prompt, generated = map(int, sizes)
    sys.path[:0] = packages.split(":")
    facts = json.loads(Path(model, "model.json").read_text())
    new = {"onnxruntime": onnxruntime, "openvino": openvino, "mlc": mlc}[engine](
        Path(model), facts, threads, prompt + generated
    )
    new()([7] * 16, 0)
    step = new()
    begun = time.perf_counter()
    step([7] * prompt, 0)
    prefill_s = time.perf_counter() - begun
    step = new()
    token = step([7], 0)
    begun = time.perf_counter()
    for past in range(1, generated + 1):
        token = step([token], past)
    print(json.dumps([prompt / prefill_s, generated / (time.perf_counter() - begun)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
