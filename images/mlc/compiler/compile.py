"""Compiles the model of a folder: compile.py TRIPLE CPU FEATURES LANES DEVICE SOURCE DESTINATION.

DEVICE is `cpu`, or one of those of gpu.py, whose host the CPU then is. Of CUDA and Metal there is source alone, `model.cu` or
`model.metal`: to make more of it takes their compilers. SOURCE has the weights and `model.json`; DESTINATION becomes that folder with the code, `model.so`, which TVM's runtime loads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LINKER = HERE / "bin" / "zig"
SOURCES = {"cuda": "cu", "metal": "metal"}
"""What is written where TVM's wheel has no compiler or runtime."""


def main(triple: str, cpu: str, features: str, lanes: str, device: str, source: str, destination: str) -> None:
    sys.path[:0] = [str(HERE), str(HERE / "packages")]  # started with -I and -S: nothing of this machine is imported
    tempfile.tempdir = os.environ["HOME"] = str(
        Path(destination).parent
    )  # there may be no other folder that can be written
    import gpu
    import llama
    import tvm
    from tvm import relax

    Path(destination).mkdir()
    for file in Path(source).iterdir():
        if file.name != "model.so":  # of another device
            shutil.copyfile(file, Path(destination, file.name))
    facts = json.loads(Path(source, "model.json").read_text(encoding="utf-8"))
    host = {"kind": "llvm", "mtriple": triple, "mcpu": cpu, "mattr": features.split(",") if features else []}
    target = tvm.target.Target(host if device == "cpu" else {**gpu.DEVICES[device], "host": host})
    with target:
        model = llama.Llama(facts, int(lanes)) if device == "cpu" else gpu.Llama(facts, target)
        module, names = model.module()
    index = json.loads(Path(source, "tensor-cache.json").read_text(encoding="utf-8"))
    stored = [record["name"] for shard in index["records"] for record in shard["records"]]
    if names != stored:
        sys.exit(f"the folder has other weights than the model: {sorted({*names} ^ {*stored})[:4]}")
    passes = llama.passes() if device == "cpu" else gpu.passes(target.kind.name)
    with target:
        built = relax.build(module, target, relax_pipeline=tvm.transform.Sequential(passes))
    if target.kind.name in SOURCES:
        (kernels,) = built.mod.imports[0].imports
        Path(destination, f"model.{SOURCES[target.kind.name]}").write_text(kernels.inspect_source(), encoding="utf-8")
        return
    built.export_library(str(Path(destination, "model.so")), fcompile=link_for_bionic if "android" in triple else link)


def link(output: str, objects: list[str], **_: object) -> None:
    subprocess.run([LINKER, "ld.lld", "-shared", "--strip-all", "--build-id=none", "-o", output, *objects], check=True)


def link_for_bionic(output: str, objects: list[str], **_: object) -> None:
    """Android's loader finds functions in the program and in what a library names; those that it names here are empty."""
    with tempfile.TemporaryDirectory() as folder:
        named = [str(Path(folder, name)) for name in ("libc.so", "libm.so")]
        for path in named:
            Path(folder, "nothing").touch()
            what = ("-m", "aarch64linux", "-soname", Path(path).name, "-b", "binary", str(Path(folder, "nothing")))
            subprocess.run([LINKER, "ld.lld", "-shared", *what, "-o", path], check=True)
        link(output, [*objects, "--no-as-needed", *named])


link.object_format = link_for_bionic.object_format = "o"  # type: ignore[attr-defined]  # export_library asks for it

if __name__ == "__main__":
    os.umask(0o022)
    main(*sys.argv[1:])
