"""What llama.cpp says in its log alone becomes fields of the `effective` event, of both releases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from meltrepro import resources

MAIN = """
#include "log.h"
#include <iostream>
int main() {
    melt::Log log;
    for (std::string line; std::getline(std::cin, line);) log.read(line + "\\n");
    melt::Json::Object found = {{"flash_attention", log.flash_attention}, {"environment", melt::engine_variables()}};
    for (const char * option : {"load", "mmap", "rope_freq_base", "rope_freq_scale"})
        if (const auto value = log.value(option)) found.emplace_back(option, *value);
    log.add_to(found);
    std::cout << melt::Json(found).dump();
}
"""


pytestmark = pytest.mark.slow  # what it tests is compiled first


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("log")
    (folder / "main.cpp").write_text(MAIN, encoding="utf-8")
    engine = resources.images() / "llama.cpp/engine"
    files = [folder / "main.cpp", engine / "log.cpp", resources.runner() / "json.cpp"]
    options = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-iquote", str(engine), "-iquote"]
    command = [compiler, *options, str(resources.runner()), *map(str, files), "-o", str(folder / "log")]
    subprocess.run(command, check=True)
    return folder / "log"


def said(program: Path, *lines: str, **variables: str) -> dict[str, Any]:
    text = "\n".join(lines)
    env = {"PATH": os.defpath, **variables}
    out = subprocess.run([program], input=text, capture_output=True, text=True, check=True, env=env).stdout
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_the_release_of_2024(program: Path) -> None:
    found = said(
        program,
        "llm_load_tensors: offloading 30 repeating layers to GPU",
        "llm_load_tensors: offloaded 30/31 layers to GPU",
        "llm_load_tensors:        CPU buffer size =    93.81 MiB",
        "llama_kv_cache_init:        CPU KV buffer size =    11.25 MiB",
        "llama_new_context_with_model: KV self size  =   11.25 MiB, K (f16):    5.62 MiB, V (f16):    5.62 MiB",
        "llama_new_context_with_model:        CPU input buffer size   =     0.21 MiB",
        "llama_new_context_with_model:        CPU compute buffer size =    14.06 MiB",
    )
    assert found["weights"] == "CPU 93.8 MiB" and found["kv_cache"] == "CPU 11.2 MiB"
    assert found["compute"] == "CPU 14.1 MiB" and found["layers_on_gpu"] == "30/31"
    assert "input" not in found


@pytest.mark.parametrize(
    ("line", "attention"),
    [
        ("sched_reserve: Flash Attention enabled", "on"),
        ("sched_reserve: Flash Attention not supported, set to disabled", "off"),
        ("llama_init_from_model: flash_attn is not compatible with Grok - forcing off", "off"),
        ("llama_context: flash_attn            = auto", "unknown"),
        ("llama_init_from_model: enabling flash_attn since it is required for quantized V cache", "on"),
    ],
)
def test_the_release_of_2026(program: Path, line: str, attention: str) -> None:
    found = said(
        program,
        "load_tensors:   CPU_Mapped model buffer size =    93.81 MiB",
        "load_tensors:   CPU_REPACK model buffer size =    54.00 MiB",
        "load_tensors:          AMX model buffer size =     1.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =    11.25 MiB",
        line,
        "sched_reserve:        CPU compute buffer size =    10.00 MiB",
        "sched_reserve:        CPU compute buffer size =    14.06 MiB",
    )
    assert found["weights"] == "AMX 1.0 MiB, CPU_Mapped 93.8 MiB, CPU_REPACK 54.0 MiB"
    assert found["compute"] == "CPU 14.1 MiB", "the last one counts"
    assert found["flash_attention"] == attention


@pytest.mark.parametrize(
    ("lines", "load", "mapped"),
    [
        (("load_tensors: loading model tensors, this can take a while... (load_mode = mmap+mlock)",), "mmap", True),
        (("load_tensors: loading model tensors, this can take a while... (load_mode = none)",), "read", False),
        (("load_tensors: loading model tensors, this can take a while... (load_mode = dio)",), "direct", False),
        (
            (
                "Failed to open file 'm' with error: Invalid argument. Falling back to buffered I/O",
                "load_tensors: loading model tensors, this can take a while... (load_mode = dio)",
            ),
            *("read", False),
        ),
    ],
)
def test_how_the_file_was_loaded(program: Path, lines: tuple[str, ...], load: str, mapped: bool) -> None:
    found = said(program, *lines)
    assert (found["load"], found["mmap"]) == (load, mapped)


def test_how_positions_are_turned(program: Path) -> None:
    found = said(program, "llama_context: freq_base             = 500000.0", "llama_context: freq_scale = 0.25")
    assert (found["rope_freq_base"], found["rope_freq_scale"]) == (500000, 0.25)
    assert "rope_freq_base" not in said(program, "llm_load_print_meta: freq_base_train  = 10000.0", ": freq_base = x")


@pytest.mark.parametrize(
    "line", ["", ": ", " buffer size = ", "a: b buffer size = many MiB", "Flash Attention ", "offloaded "]
)
def test_what_says_nothing_is_left_out(program: Path, line: str) -> None:
    assert said(program, line) == {"flash_attention": "unknown", "environment": ""}


def test_variables_that_steer_the_engine_are_named(program: Path) -> None:
    found = said(program, GGML_NO_BACKTRACE="1", OMP_NUM_THREADS="2", HOME="/home/me", TOKEN="secret")
    assert found["environment"] == "GGML_NO_BACKTRACE=1 OMP_NUM_THREADS=2"
