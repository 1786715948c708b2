"""Every engine held against one unquantized model: llama.cpp's own scorer says how far from it the same codes are."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meltrepro.accuracy.scores import Score
from meltrepro.errors import RecordError
from meltrepro.frameworks.base import scorer_of
from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.record.trial import parse_request
from tests.integration import prebuilt
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.integration
ENGINES = ("onnxruntime", "openvino", "mlc")
CONTEXT, WINDOWS = 64, 4
TOKENS = WINDOWS * (CONTEXT // 2 - 1)
SPEC = f"""\
meltrepro: 1
name: divergence
include: [common/models.yaml]
models:
  smollm2-135m: {{quantizations: [f16, q4_0]}}
frameworks:
  llama.cpp: {{release: "2026-10-01"}}
  onnxruntime: {{release: "1.29.0"}}
  openvino: {{release: "2026.4.1"}}
  mlc: {{release: "0.27.0.post1"}}
targets:
  host: {{kind: host, threads: 1}}
workloads:
  text: {{task: kl-divergence, text: {{file: {ROOT}/specs/texts/harbour.txt}}, context: {CONTEXT}, chunks: {WINDOWS}}}
  windows: {{task: perplexity, text: {{file: {ROOT}/specs/texts/harbour.txt}}, context: [32, 128], chunks: 2}}
"""
SEVERAL = ("llama.cpp", "onnxruntime")
"""Engines that score windows of several lengths."""


@dataclass(frozen=True)
class Measured:
    artifacts: Mapping[str, Path]
    cells: Mapping[tuple[str, str, str], CellRecord]
    """By quantization, framework and workload."""

    def scores(self, quantization: str, kind: str, workload: str = "text") -> dict[str, Score]:
        (repetition,) = self.cells[quantization, kind, workload].repetitions
        return {score.metric: score for score in repetition.scores}

    def expected(self) -> Path:
        """What the unquantized model expects."""
        return next(path for name, path in self.artifacts.items() if "/logits/" in name)


@pytest.fixture(scope="module")
def measured(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("specs")
    engines = prebuilt.build(folder, SPEC)
    # Others of these tests measure at the same time: scores are looked at, not speed.
    wanted = ["*/text", *(f"*/f16/{kind}/host/windows-*" for kind in SEVERAL)]
    only = [f"--only={each}" for each in wanted]
    done = meltrepro("run", engines.spec, "--no-track", *only, home=folder, MELTREPRO_LOCKS=str(folder / "locks"))
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (folder / "records").iterdir()
    cells = {
        (cell.entry.quantization, cell.entry.framework, cell.entry.workload): cell
        for cell in read_campaign(record).cells
    }
    return Measured(engines.artifacts, cells)


def test_all_are_held_against_one_file(measured: Measured) -> None:
    asked = [cell.repetitions[0].scoring for (_, _, name), cell in measured.cells.items() if name == "text"]
    assert len(asked) == 2 * (1 + len(ENGINES))
    assert len({request.inputs["logits"] for request in asked if request is not None}) == 1


@pytest.mark.parametrize("kind", ENGINES)
def test_floats_of_16_bits_diverge_by_nothing(measured: Measured, kind: str) -> None:
    found = measured.scores("f16", kind)
    assert found["kl_divergence"].n == TOKENS
    assert abs(found["kl_divergence"].value) < 2e-4, "nats a token; the file has probabilities in 65536 steps"
    assert found["same_top"].value >= 1 - 2 / TOKENS


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_codes_diverge_as_far_as_llama_cpp_says(measured: Measured, kind: str) -> None:
    """To within 5 %, which is a standard error of these: engines round what codes are multiplied with in different ways."""
    ours, theirs = measured.scores("q4_0", kind), measured.scores("q4_0", "llama.cpp")
    assert ours["kl_divergence"].value == pytest.approx(theirs["kl_divergence"].value, rel=0.05)
    assert ours["kl_divergence"].stderr == pytest.approx(theirs["kl_divergence"].stderr, rel=0.1)
    assert ours["perplexity"].value == pytest.approx(theirs["perplexity"].value, rel=0.03)
    assert ours["same_top"].value == pytest.approx(theirs["same_top"].value, abs=0.05)


def test_windows_of_several_lengths_are_scored_side_by_side(measured: Measured) -> None:
    """By every engine alike; a longer window tells more of what comes."""
    found = {}
    for kind in SEVERAL:
        short, long = (measured.scores("f16", kind, f"windows-{n}")["perplexity"] for n in (32, 128))
        assert (short.n, long.n) == (2 * 15, 2 * 63)
        found[kind] = (short.value, long.value)
    assert found["onnxruntime"] == pytest.approx(found["llama.cpp"], rel=0.01)
    assert found["llama.cpp"][1] < found["llama.cpp"][0]


HEAD = struct.Struct("<8s3i")


def cut_off(content: bytes) -> bytes:
    return content[:-1]


def of_another_vocabulary(content: bytes) -> bytes:
    """Two entries fewer in every row."""
    magic, window, vocabulary, windows = HEAD.unpack_from(content)
    rows = windows * (window - 1 - window // 2)
    start = HEAD.size + 4 * window * windows
    end = start + rows * 2 * (vocabulary - 2 + 4)
    return HEAD.pack(magic, window, vocabulary - 2, windows) + content[HEAD.size : end]


def of_other_tokens(content: bytes) -> bytes:
    place = HEAD.size + 4 * 5
    (token,) = struct.unpack_from("<i", content, place)
    return content[:place] + struct.pack("<i", token + 1) + content[place + 4 :]


def of_other_windows(content: bytes) -> bytes:
    magic, window, vocabulary, windows = HEAD.unpack_from(content)
    shorter = window // 2
    size = HEAD.size + windows * (4 * shorter + (shorter - 1 - shorter // 2) * 2 * (vocabulary + 4))
    return HEAD.pack(magic, shorter, vocabulary, windows) + content[HEAD.size : size]


def no_such_file(content: bytes) -> bytes:
    return b"GGUF" + content[4:]


def endless(content: bytes) -> bytes:
    magic, window, vocabulary, _ = HEAD.unpack_from(content)
    return HEAD.pack(magic, window, vocabulary, 2**31 - 1) + content[HEAD.size :]


def score(measured: Measured, folder: Path, content: bytes, **changes: Any) -> subprocess.CompletedProcess[str]:
    """What ONNX Runtime's scorer says beside what is expected."""
    request = request_of(measured)
    model = next(path for name, path in measured.artifacts.items() if name.split("/")[1:3] == ["q4_0", "onnxruntime"])
    bundle = next(path for name, path in measured.artifacts.items() if name.startswith("onnxruntime/run/"))
    asked = request.model_copy(update={"model": str(model), **changes}).model_dump_json(exclude_none=True)
    (folder / "request.json").write_text(asked)
    (folder / "logits").write_bytes(content)
    text = ROOT / "specs" / "texts" / "harbour.txt"
    command = [bundle / "bin" / "melt-scorer", folder / "request.json", text, folder / "logits"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def request_of(measured: Measured) -> Any:
    asked = measured.cells["q4_0", "onnxruntime", "text"].repetitions[0].scoring
    assert asked is not None
    return parse_request(asked.model_dump_json().encode())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, "is not whole: it has "),
        (of_another_vocabulary, "has another vocabulary: 49150 tokens, and this one 49152"),
        (of_other_tokens, "has other tokens for the text: number 6 is "),
        (of_other_windows, f"is of windows of {CONTEXT // 2} tokens, and {CONTEXT} are asked for"),
        (no_such_file, "is no such file: it has "),
        (endless, "is not whole: it has "),
    ],
)
def test_what_cannot_be_compared_is_not_scored(
    measured: Measured, tmp_path: Path, damage: Callable[[bytes], bytes], told: str
) -> None:
    done = score(measured, tmp_path, damage(measured.expected().read_bytes()))
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(RecordError) as caught:
        scorer_of("onnxruntime").read(request_of(measured), done.stdout, done.stderr)
    assert caught.value.message.startswith("the scorer gave up: ")
    assert told in caught.value.message
    assert len(done.stdout.splitlines()) == 1, json.dumps(done.stdout)


def test_a_context_that_is_longer_than_the_models_is_one_line(measured: Measured, tmp_path: Path) -> None:
    done = score(measured, tmp_path, measured.expected().read_bytes(), context=9000)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["refused"].startswith("a context of 9000 tokens is longer than the ")
