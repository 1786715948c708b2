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
    sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "gguf-py"), str(HERE / "packages")]
    script, *options = _command(sys.argv[1])
    sys.argv = [str(SCRIPTS / script), *options]
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
