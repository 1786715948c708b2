"""Runs the converter of one llama.cpp release on a Hugging Face checkpoint: convert.py f16|f32.

Reads /source, writes /out/model. Which of the release's scripts runs, and with which options, follows from the files.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = HERE / "llama.cpp"
SOURCE, RESULT = Path("/source"), Path("/out/model")
KINDS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U8": "uint8"}


class _SafeOpen:
    """What `safetensors.safe_open` is to converters, for the stand-in of torch: one file, tensor by tensor."""

    def __init__(self, path: str, framework: str, device: str = "cpu") -> None:
        import numpy as np

        self._bytes = np.memmap(path, mode="r", dtype="u1")
        length = int.from_bytes(self._bytes[:8].tobytes(), "little")
        self._start = 8 + length
        self._header = json.loads(self._bytes[8 : self._start].tobytes())
        self._header.pop("__metadata__", None)

    def __enter__(self) -> _SafeOpen:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return sorted(self._header)

    def get_tensor(self, name: str) -> object:
        """A tensor of the stand-in, whose bytes stay in the file until they are used."""
        import torch

        entry = self._header[name]
        begin, end = (self._start + offset for offset in entry["data_offsets"])
        kind = getattr(torch, KINDS[entry["dtype"]])
        return torch.from_numpy(self._bytes[begin:end]).view(kind).reshape(entry["shape"])


def _vocabulary() -> str:
    """How the tokenizer is read by the converter of 2024 for models of LLaMA's kind."""
    if (SOURCE / "tokenizer.model").exists():
        return "spm"
    tokenizer = json.loads((SOURCE / "tokenizer.json").read_bytes())
    return "bpe" if "ByteLevel" in json.dumps(tokenizer.get("decoder")) else "hfft"


def _command(kind: str) -> list[str]:
    """Script and options."""
    if (SCRIPTS / "convert_hf_to_gguf.py").exists():
        return ["convert_hf_to_gguf.py", "--outtype", kind, "--outfile", str(RESULT), str(SOURCE)]
    config = json.loads((SOURCE / "config.json").read_bytes())
    if config["architectures"][0] in ("LlamaForCausalLM", "MistralForCausalLM"):
        options = ["--outtype", kind, "--vocab-type", _vocabulary(), "--outfile", str(RESULT)]
        return ["convert.py", *options, "--concurrency", "1", "--pad-vocab", str(SOURCE)]
    return ["convert-hf-to-gguf.py", "--outtype", kind, "--outfile", str(RESULT), str(SOURCE)]


def main() -> None:
    """Run the script as if it had been called by itself, without network and without anything that may be written."""
    os.environ.update(
        USE_TORCH="0", USE_TF="0", USE_FLAX="0", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", NO_COLOR="1"
    )
    os.environ.update(HOME="/out/home", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")
    tempfile.tempdir = "/out"
    sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "gguf-py"), str(HERE / "modules"), str(HERE / "packages")]
    import safetensors

    safetensors.safe_open = _SafeOpen
    script, *options = _command(sys.argv[1])
    sys.argv = [str(SCRIPTS / script), *options]
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
