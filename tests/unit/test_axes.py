"""Lists as values of options: the cells that they make, what these are called, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.errors import ManifestError
from meltrepro.frameworks.base import Asked, SkipKind
from meltrepro.frameworks.llamacpp.options import KNOBS, Options, arguments, given
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.frameworks.llamacpp.variants import LEVELS, on_cpu
from meltrepro.manifest import axes
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.manifest.pins import manifest_digest
from meltrepro.plan.estimate import Sizes
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.record.ids import CellId
from meltrepro.record.trial import ScoringRequest
from meltrepro.registry import FRAMEWORKS, TARGETS
from meltrepro.targets.base import DeviceFacts
from tests.support.ggufs import F32, U32, gguf

NEW, OLD = "2026-10-01", "2024-02-27"
V3 = LEVELS["x86_64_v3"].requires
HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", V3, 4, 24 * 10**9, 100 * 10**9, facts={})


def loaded(
    folder: Path, options: dict[str, Any], release: str = NEW, kind: str = "llama.cpp", **target: Any
) -> LoadedManifest:
    document = {
        "meltrepro": 1,
        "name": "axes",
        "models": {"m": {"source": {"file": "m.gguf"}, "chat_template": "chatml", "quantizations": ["q8_0"]}},
        "frameworks": {"f": {"kind": kind, "release": release, "options": options}},
        "targets": {"t": {"kind": "host", **target}},
        "workloads": {"chat": {"conversations": [["Hi"]], "batch": 256}},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_manifest(path)


def planned(
    folder: Path, options: dict[str, Any], release: str = NEW, only: list[str] | None = None, **more: Any
) -> Plan:
    return make_plan(loaded(folder, options, release, **more), {"t": HOST}, only=only or [])


def frameworks(plan: Plan) -> list[str]:
    return [cell.key.framework for cell in plan.cells]


def test_a_list_makes_a_cell_of_each_value(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"flash_attention": ["on", "off"], "kv_type": ["f16", "q8_0-f16"], "poll": 0})
    assert frameworks(plan) == [
        f"f+kv_type={kv}+flash_attention={attention}" for kv in ("f16", "q8_0-f16") for attention in ("on", "off")
    ]
    usual = {"gpu_layers": 0, "mmap": True, "poll": 0}
    assert plan.cells[1].options == {**usual, "kv_type": "f16", "flash_attention": "off"}
    assert {cell.framework_name for cell in plan.cells} == {"f"}
    for cell in plan.cells:
        key = CellId.parse(cell.id)
        assert key == cell.key and str(key.model_id) == cell.model_id == "m/q8_0/f"


def test_points_share_what_is_built(tmp_path: Path) -> None:
    one, many = planned(tmp_path, {}), planned(tmp_path, {"ubatch": [None, 32, 64], "mmap": [True, False]})
    assert len(many.cells) == 6 * len(one.cells)
    assert [node.id for node in many.bundles] == [node.id for node in one.bundles]
    assert [node.recipe for node in many.bundles] == [node.recipe for node in one.bundles]
    assert many.models == one.models
    assert {cell.bundle_id for cell in many.cells} == {one.cells[0].bundle_id}
    assert frameworks(many)[0] == "f+mmap=true+ubatch=default"


def test_a_smaller_cache_is_planned_with_less_memory(tmp_path: Path) -> None:
    kinds = ("f32", "f16", "q8_0-f16", "q8_0")
    manifest, sizes = loaded(tmp_path, {"kv_type": list(kinds)}), Sizes(weights={"m/q8_0/f": 10**9})
    made = make_plan(manifest, {"t": HOST}, sizes=sizes).estimate.peak_memory_bytes
    needs = [next(size or 0 for cell, size in made.items() if f"kv_type={kind}/" in cell) for kind in kinds]
    assert needs == sorted(needs, reverse=True) and len({*needs}) == len(kinds)
    cache = needs[0] - needs[1]  # 16 of 32 bits
    assert needs[1] - needs[3] == pytest.approx(cache * (16 - 8.5) / 16, rel=1e-6)


def test_one_value_changes_no_name(tmp_path: Path) -> None:
    assert frameworks(planned(tmp_path, {"ubatch": 64})) == ["f"]
    assert frameworks(planned(tmp_path, {"ubatch": [64]})) == ["f+ubatch=64"]


def test_options_of_a_run_change_no_lock(tmp_path: Path) -> None:
    usual = manifest_digest(loaded(tmp_path, {}).manifest)
    for options in ({"ubatch": 64}, {"kv_type": ["f16", "q8_0"]}, {"gpu_layers": None, "mmap": [True, False]}):
        assert manifest_digest(loaded(tmp_path, options).manifest) == usual
    assert manifest_digest(loaded(tmp_path, {"isas": ["armv8_2"]}, OLD).manifest) != usual


@pytest.mark.parametrize("kind", sorted(set(FRAMEWORKS.kinds()) - {"toy"}))
def test_every_engine_has_axes(kind: str, tmp_path: Path) -> None:
    """Of the options that its runner takes, and of no others."""
    engine = FRAMEWORKS.get(kind)
    names = axes.swept(engine.options)
    assert names and "isas" not in names
    values = {"bool": [True, False]}
    usual = engine.options()
    for name in names:
        if isinstance(getattr(usual, name), bool):
            two = engine.options.model_validate({name: values["bool"]})
            assert [point.name for point in axes.points(two)] == [f"+{name}=true", f"+{name}=false"]
            assert engine.pinned(two) == engine.pinned(usual)


def test_cells_of_an_axis_can_be_chosen(tmp_path: Path) -> None:
    options = {"kv_type": ["f16", "q8_0"]}
    assert frameworks(planned(tmp_path, options, only=["*kv_type=q8_0*"])) == ["f+kv_type=q8_0"]


def test_what_one_point_cannot_have_leaves_it_out(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"kv_type": ["f16", "q8_0"], "flash_attention": "off", "ubatch": [128, 512]})
    assert frameworks(plan) == ["f+ubatch=128+kv_type=f16"]
    assert {skip.kind for skip in plan.skipped} == {SkipKind.options}
    reasons = " ".join(skip.reason for skip in plan.skipped)
    assert "values can be kept as q8_0 with flash attention alone" in reasons
    assert "ubatch is 512, more than the 256 tokens of the workload's batch" in reasons


@pytest.mark.parametrize(
    ("options", "release", "message"),
    [
        (
            {"flash_attention": "off", "kv_type": "q8_0"},
            NEW,
            "kv_type: values can be kept as q8_0 with flash attention",
        ),
        ({"flash_attention": "off"}, OLD, "flash_attention: release 2024-02-27 has no flash_attention"),
        ({"kv_type": ["q8_0", "q4_0"]}, OLD, "kv_type: release 2024-02-27 keeps no values as q8_0"),
        ({"kv_type": "bf16"}, OLD, "kv_type: release 2024-02-27"),
        ({"load": "direct"}, OLD, "load: release 2024-02-27 has no load: direct"),
        ({"rope_scaling": "longrope"}, OLD, "rope_scaling: release 2024-02-27 has no rope_scaling: longrope"),
        ({"load": "read", "mmap": False}, NEW, "mmap: mmap and load say the same"),
        ({"load": "direct", "mlock": True}, NEW, "mlock: what is loaded as direct"),
        ({"load": "read", "lazy": "on"}, NEW, "lazy: rows can be read"),
        ({"affinity_strict": True}, NEW, "affinity_strict: it says nothing without"),
        ({"kv_offload": False}, NEW, "kv_offload: kv_offload needs cuda"),
        ({"gpu_layers": [0, "all"]}, NEW, "gpu_layers: gpu_layers needs cuda"),
        ({"affinity": "4-2"}, NEW, "affinity: expected CPUs as 0-3,6"),
        ({"affinity": "0x"}, NEW, "affinity: expected CPUs"),
        ({"kv_type": ["f16", "q9"]}, NEW, "kv_type[1]: expected one of f32"),
        ({"poll": [50, 101]}, NEW, "poll[1]: expected at most 100"),
        ({"ubatch": [64, 64]}, NEW, "ubatch: '64' is named twice"),
        ({"isas": "armv8_2"}, NEW, "isas: expected a list"),
    ],
)
def test_what_cannot_be_is_told_at_its_key(tmp_path: Path, options: Any, release: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        planned(tmp_path, options, release)
    assert f"frameworks.f.options.{message}" in str(caught.value)
    assert all(problem.line > 1 for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("options", "target", "reason"),
    [
        ({"affinity": "0-4"}, {}, "affinity is 0-4, and the device has 4 CPUs"),
        ({"affinity": "0xc", "affinity_strict": True}, {"threads": 3}, "not a CPU for each of 3 threads"),
        ({"ubatch": 257}, {}, "ubatch is 257"),
    ],
)
def test_what_does_not_fit_a_device_is_skipped(tmp_path: Path, options: Any, target: Any, reason: str) -> None:
    plan = planned(tmp_path, options, **target)
    assert not plan.cells
    (skip,) = plan.skipped
    assert reason in skip.reason and skip.kind is SkipKind.options


def test_names_have_a_length(tmp_path: Path) -> None:
    long = {f"yarn_{name}": [1.123456, 2.0] for name in ("attn_factor", "beta_fast", "beta_slow", "orig_ctx")}
    long["yarn_orig_ctx"] = [1, 2]
    with pytest.raises(ManifestError, match="names of more than 120 characters"):
        loaded(tmp_path, {**long, "rope_freq_base": [1.0, 2.0], "rope_freq_scale": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("asked", "release", "words"),
    [
        ({"gpu_layers": 0, "mmap": True}, NEW, ""),
        ({"kv_type": "q8_0", "flash_attention": "on", "ubatch": 64}, NEW, "-ctk q8_0 -ctv q8_0 -fa on -ub 64"),
        ({"kv_type": "q8_0-f16", "mmap": False, "mlock": True}, OLD, "--no-mmap --mlock -ctk q8_0 -ctv f16"),
        ({"load": "read", "mlock": True}, NEW, "-lm mlock"),
        ({"load": "direct"}, NEW, "-lm dio"),
        ({"affinity": "0,2-3", "affinity_strict": False, "priority": "high"}, NEW, "-C d --cpu-strict 0 --prio 2"),
        ({"swa_full": False, "repack": False, "numa": "isolate"}, NEW, "--no-repack --numa isolate"),
    ],
)
def test_options_are_words_of_command_lines(asked: dict[str, Any], release: str, words: str) -> None:
    assert arguments(asked, release) == tuple(words.split())


def test_a_scorer_is_asked_with_what_is_given_alone() -> None:
    scorer = PerplexityScorer()
    usual = {"gpu_layers": 0, "mmap": True}
    assert scorer.takes(usual) is None, "what was asked before there were more options stays as it is"
    assert scorer.takes({**usual, "kv_type": "q8_0"}) == {"mmap": True, "kv_type": "q8_0"}
    request = ScoringRequest(
        task="perplexity",
        mode="perplexity",
        model="",
        context=256,
        threads=1,
        batch=256,
        data="0" * 64,
        inputs={},
        options=scorer.takes({**usual, "kv_type": "q8_0-f16"}),
    )
    words = [str(word) for word in scorer.arguments(request, OLD)]
    assert words[words.index("-ctk") : words.index("-ctk") + 4] == ["-ctk", "q8_0", "-ctv", "f16"]


def test_a_mask_is_a_list_of_cpus() -> None:
    assert Options(affinity="0x4f").affinity == "0,1,2,3,6"
    assert Options(kv_type="q8_0-q8_0").kv_type == "q8_0"
    assert given(Options(affinity="0x1")) == {"affinity": "0"} and given(Options()) == {}
    assert set(KNOBS) == set(axes.swept(Options))


def test_a_cache_that_a_models_heads_do_not_fill(tmp_path: Path) -> None:
    """Of 40 numbers a head, blocks of 32 cannot be made."""
    model = tmp_path / "m.gguf"
    values = {"llama.embedding_length": (U32, 80), "llama.attention.head_count": (U32, 2)}
    model.write_bytes(gguf(values, [("output.weight", (1,), F32, bytes(4))]))
    found = FRAMEWORKS.get("llama.cpp")
    release = found.releases()[NEW]
    assert found.look(Options(), model, release).refusal is None
    for kv_type, what in (("q8_0", "keys"), ("f16-q8_0", "values")):
        assert f"its {what} have 40 numbers" in str(found.look(Options(kv_type=kv_type), model, release).refusal)


@pytest.mark.parametrize(
    ("options", "swept", "reason"),
    [
        ({"affinity": "0-1"}, (), "affinity is 0-1, and the target's cores are 2-3"),
        ({"affinity": "2-3"}, (), None),
        ({"kv_offload": False}, (), "no GPU is used there, and kv_offload means nothing without"),
        ({"gpu_layers": 12}, ("gpu_layers",), "no GPU is used there, and gpu_layers means nothing without"),
        ({"gpu_layers": 12}, (), None),
    ],
)
def test_what_a_device_has_not(options: dict[str, Any], swept: tuple[str, ...], reason: str | None) -> None:
    """`gpu_layers` alone may stand in a manifest of boards and hosts, and means nothing on those."""
    board = TARGETS.get("linux").options(kind="linux", host="board", cores="2-3")
    asked = Asked(Options(**options), swept, on_cpu(LEVELS["x86_64_v3"]), 512, board)
    assert FRAMEWORKS.get("llama.cpp").option_refusal(asked, HOST) == reason
