"""Compiles the model of a folder for a CPU: compile.py TRIPLE CPU FEATURES LANES SOURCE DESTINATION.

SOURCE has the weights and `model.json`; DESTINATION becomes that folder with the code, `model.so`, which TVM's runtime loads.
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


def main(triple: str, cpu: str, features: str, lanes: str, source: str, destination: str) -> None:
    sys.path[:0] = [str(HERE), str(HERE / "packages")]  # started with -I and -S: nothing of this machine is imported
    import llama
    import tvm
    from tvm import relax

    tempfile.tempdir = str(Path(destination).parent)  # there may be no other folder that can be written
    Path(destination).mkdir()
    for file in Path(source).iterdir():
        shutil.copyfile(file, Path(destination, file.name))
    facts = json.loads(Path(source, "model.json").read_text(encoding="utf-8"))
    module, names = llama.Llama(facts, int(lanes)).module()
    index = json.loads(Path(source, "tensor-cache.json").read_text(encoding="utf-8"))
    stored = [record["name"] for shard in index["records"] for record in shard["records"]]
    if names != stored:
        sys.exit(f"the folder has other weights than the model: {sorted({*names} ^ {*stored})[:4]}")
    target = {"kind": "llvm", "mtriple": triple, "mcpu": cpu, "mattr": features.split(",") if features else []}
    built = relax.build(module, tvm.target.Target(target), relax_pipeline=tvm.transform.Sequential(llama.passes()))
    built.export_library(str(Path(destination, "model.so")), fcompile=link)


def link(output: str, objects: list[str], **_: object) -> None:
    subprocess.run([LINKER, "ld.lld", "-shared", "--strip-all", "--build-id=none", "-o", output, *objects], check=True)


link.object_format = "o"  # type: ignore[attr-defined]  # export_library asks the function for it

if __name__ == "__main__":
    os.umask(0o022)
    main(*sys.argv[1:])
