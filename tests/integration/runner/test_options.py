"""Options of llama.cpp as real runners take them: what is in effect then, and what a release or a value of it refuses."""

from __future__ import annotations

import math
import os
import subprocess
from typing import Any

import pytest

from meltrepro.frameworks.llamacpp.options import KNOBS, OLD, arguments
from tests.integration.runner.contract import STORY, MakeRunner, Runner

pytestmark = pytest.mark.integration

MINE = sorted(os.sched_getaffinity(0))
LAST = str(MINE[-1])
GREEDILY = ("--temp", "0", "--repeat-penalty", "1.0")
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32, "q5_1": 24 / 32, "iq4_nl": 18 / 32}
"""Of a value in a cache of keys or values."""
BOTH: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"cache_types": "f16/f16", "mmap": True, "load": "mmap", "mlock": False, "numa": "off", "threads_batch": 1}),
    ({"kv_type": "q8_0-f16"}, {"cache_types": "q8_0/f16"}),
    ({"kv_type": "f32"}, {"cache_types": "f32/f32"}),
    ({"load": "read", "threads_batch": 2}, {"load": "read", "mmap": False, "threads": 1, "threads_batch": 2}),
    ({"mmap": False}, {"load": "read", "mmap": False}),
    ({"mlock": True, "numa": "isolate"}, {"mlock": True}),
    (
        {"rope_scaling": "yarn", "rope_freq_base": 20000, "rope_freq_scale": 0.5, "yarn_beta_fast": 16.5},
        {"rope_scaling": "yarn", "rope_freq_base": 20000, "rope_freq_scale": 0.5, "yarn_beta_fast": 16.5},
    ),
    (
        {"yarn_ext_factor": 0, "yarn_attn_factor": 1.5, "yarn_beta_slow": 2, "yarn_orig_ctx": 4096},
        {"yarn_ext_factor": 0, "yarn_attn_factor": 1.5, "yarn_beta_slow": 2, "yarn_orig_ctx": 4096},
    ),
]
NEW: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *BOTH,
    (
        {},
        {
            "flash_attention": "on",
            "n_ubatch": 128,
            "poll": 50,
            "repack": True,
            "swa_full": True,
            "lazy": "auto",
            "affinity_strict": False,
            "priority": "other",
            "rope_freq_base": 100000,
            "rope_freq_scale": 1,
        },
    ),
    ({"flash_attention": "off"}, {"flash_attention": "off"}),
    ({"flash_attention": "on", "kv_type": "q8_0"}, {"flash_attention": "on", "cache_types": "q8_0/q8_0"}),
    ({"flash_attention": "auto", "kv_type": "iq4_nl"}, {"flash_attention": "on", "cache_types": "iq4_nl/iq4_nl"}),
    ({"flash_attention": "off", "kv_type": "q4_0-bf16"}, {"flash_attention": "off", "cache_types": "q4_0/bf16"}),
    ({"ubatch": 32}, {"n_ubatch": 32}),
    ({"load": "direct"}, {"mmap": False}),
    ({"load": "auto", "lazy": "off", "repack": False}, {"load": "mmap", "lazy": "off", "repack": False}),
    ({"poll": 0, "swa_full": False}, {"poll": 0, "swa_full": False}),
    ({"affinity": LAST, "priority": "low"}, {"affinity": LAST, "priority": "batch"}),
]
CASES = [("2024-02-27", *case) for case in BOTH] + [("2026-10-01", *case) for case in NEW]


def test_every_option_that_a_release_has_is_told(runner: Runner) -> None:
    """Those of a GPU are told where there is one."""
    old = runner.bundle.facts["release"] == OLD
    names = {knob.told or name for name, knob in KNOBS.items() if not (knob.gpu or (old and knob.new))}
    said = runner().trace.effective
    assert names <= said.keys()
    assert not said.keys() & {name for name, knob in KNOBS.items() if knob.gpu}


@pytest.mark.parametrize(("release", "asked", "expected"), CASES)
def test_what_is_asked_is_in_effect(
    make_runner: MakeRunner, release: str, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    runner = make_runner(release, "x86_64")
    run = runner.run({**runner.request(max_tokens=4, warmup_tokens=0), **asked})
    trace = run.trace
    said = trace.effective
    assert {name: said.get(name) for name in expected} == expected
    keys, values = str(said["cache_types"]).split("/")
    assert trace.context.kv_bytes == trace.context.n_ctx * 30 * 3 * 64 * (BYTES[keys] + BYTES[values])
    assert "CPU" in str(said["devices"]) and "AVX2" in str(said["cpu_features"])
    if os.geteuid() == 0 or not asked.get("mlock"):  # others may lock as much as the system's limit says
        assert (int(said["locked_bytes"]) > 50e6) == asked.get("mlock", False), run.stderr


@pytest.mark.skipif(len(MINE) < 2, reason="this machine has one CPU")
def test_every_thread_is_placed(make_runner: MakeRunner) -> None:
    """Each has a CPU of its own, the first thread the last of the list; more may prefill than generate."""
    runner = make_runner("2026-10-01", "x86_64")
    asked = {"affinity": f"{MINE[0]},{LAST}", "affinity_strict": True}
    said = runner.run({**runner.request(max_tokens=4, threads=2), **asked}).trace.effective
    assert said["affinity"] == f"{LAST} | {MINE[0]}" and said["affinity_strict"] is True
    said = runner.run({**runner.request(max_tokens=4), **asked, "threads_batch": 2}).trace.effective
    assert (said["threads"], said["threads_batch"]) == (1, 2)


def test_answers_are_those_of_other_options_where_these_change_no_numbers(make_runner: MakeRunner) -> None:
    runner = make_runner("2026-10-01", "x86_64")
    usual = runner().turn
    for asked in ({"load": "read"}, {"poll": 0}, {"threads_batch": 2}, {"affinity": LAST}):
        assert runner.run({**runner.request(), **asked}).turn.text == usual.text
    turned = runner.run({**runner.request(), "rope_freq_base": 100}).turn
    assert turned.text != usual.text and math.isfinite(turned.n_gen)


@pytest.mark.parametrize(
    ("release", "asked"),
    [
        ("2024-02-27", {"kv_type": "q8_0-f16"}),
        ("2024-02-27", {"rope_scaling": "linear", "rope_freq_scale": 0.8}),
        ("2026-10-01", {"kv_type": "q8_0", "flash_attention": "on", "ubatch": 64}),
        ("2026-10-01", {"kv_type": "q4_0-f16", "flash_attention": "off", "load": "direct"}),
        ("2026-10-01", {"rope_scaling": "yarn", "rope_freq_scale": 0.5, "yarn_orig_ctx": 4096, "yarn_beta_fast": 16}),
        ("2026-10-01", {"repack": False, "affinity": LAST, "affinity_strict": True, "threads_batch": 1, "lazy": "off"}),
    ],
)
def test_an_option_means_what_it_means_to_llama_cpps_own_programs(
    make_runner: MakeRunner, release: str, asked: dict[str, Any]
) -> None:
    """They answer alike, and the scorer takes the same words."""
    runner = make_runner(release, "x86_64")
    answer = runner.run({**runner.request(conversations=[[STORY]], batch=512), **asked}).turn
    words = [*arguments(asked, release), "-m", str(runner.model), "-c", "512", "-t", "1", "-b", "512"]
    more = ["--log-disable"] if release == OLD else ["-no-cnv", "--no-display-prompt", "--no-warmup"]
    command = [*runner.bundle.command("main"), *words, "-p", STORY, "-n", "24", *GREEDILY, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runner.folder)
    said = done.stdout.rpartition("assistant\n")[2].removesuffix("[end of text]").strip()
    assert answer.text.strip() == said
    (runner.folder / "text").write_text("The keeper climbed the stairs to light the lamp. " * 120)
    command = [*runner.bundle.command("perplexity"), *words, "-f", str(runner.folder / "text"), "--chunks", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runner.folder)
    assert "Final estimate: PPL" in done.stdout + done.stderr


REFUSED = [
    ("2024-02-27", {"kv_type": "q8_0"}, "kv_type: expected a type of keys and values that this release has"),
    ("2024-02-27", {"kv_type": "bf16"}, "kv_type: expected a type"),
    ("2024-02-27", {"flash_attention": "off"}, "flash_attention: unknown field"),
    ("2024-02-27", {"load": "direct"}, 'load: expected one of mmap, read, got "direct"'),
    ("2024-02-27", {"affinity": "0"}, "affinity: unknown field"),
    ("2026-10-01", {"kv_type": "q8"}, "kv_type: expected a type"),
    ("2026-10-01", {"kv_type": "q8_0-"}, "kv_type: expected a type"),
    ("2026-10-01", {"kv_type": 8}, "kv_type: expected a text"),
    ("2026-10-01", {"flash_attention": True}, "flash_attention: expected one of auto, on, off, got true"),
    ("2026-10-01", {"ubatch": 0}, "ubatch: expected a whole number from 1"),
    ("2026-10-01", {"threads_batch": 513}, "threads_batch: expected a whole number from 1 to 512"),
    ("2026-10-01", {"load": "direct", "mlock": True}, "mlock: this release keeps in memory only"),
    ("2026-10-01", {"affinity": "0-"}, "affinity: expected a list of CPUs"),
    ("2026-10-01", {"affinity": "3-1"}, "affinity: expected a list of CPUs"),
    ("2026-10-01", {"affinity": "99999"}, "affinity: expected a list of CPUs"),
    ("2026-10-01", {"tensor_split": "1-x"}, "tensor_split: expected a share for each GPU"),
    ("2026-10-01", {"poll": 101}, "poll: expected a whole number from 0 to 100"),
    ("2026-10-01", {"rope_freq_base": 0}, "rope_freq_base: expected a number above 0"),
    ("2026-10-01", {"rope_scaling": "dynamic"}, "rope_scaling: expected one of none, linear, longrope, yarn"),
]


@pytest.mark.parametrize(("release", "asked", "message"), REFUSED)
def test_refused(make_runner: MakeRunner, release: str, asked: dict[str, Any], message: str) -> None:
    runner = make_runner(release, "x86_64")
    run = runner.run({**runner.request(), **asked})
    assert run.status == 2
    assert message in run.error["message"]


def test_quantized_values_without_flash_attention(make_runner: MakeRunner) -> None:
    runner = make_runner("2026-10-01", "x86_64")
    run = runner.run({**runner.request(), "kv_type": "q8_0", "flash_attention": "off"})
    assert run.status == 4
    assert "quantized V cache requires flash_attn" in run.stderr
