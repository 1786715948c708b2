"""Manifest -> plan: the matrix, the names that nobody knows, and what is skipped before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import ManifestError, PlanError, UsageError
from meltrepro.frameworks.base import Variant
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.synthetic import GgufWeights
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.shapes import SHAPES
from meltrepro.manifest.sources import FileSource, SyntheticSource
from meltrepro.plan import estimate
from meltrepro.plan.estimate import Sizes
from meltrepro.plan.identity import plan_digest, plan_document
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan, require_cells
from meltrepro.registry import FRAMEWORKS
from meltrepro.targets.base import DeviceFacts
from tests.support.frameworks import SOURCE, Fake

OLD = Variant("old", "old", "x86_64-linux-musl", "musl", frozenset({"sse2"}))
NEW = Variant("new", "new", "x86_64-linux-musl", "musl", frozenset({"sse2", "avx2"}))
ARM = Variant("arm", "arm", "aarch64-linux-musl", "musl", frozenset({"asimd"}))
ALPHA = Fake("alpha", (NEW, OLD, ARM), {"q8_0": 8.5, "q4_0": 4.5, "f16": 16.0})
BETA = Fake("beta", (OLD,), {"int4": 4.0})
HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", frozenset({"sse2", "avx2"}), 4, 24 * 10**9, 100 * 10**9, facts={})

V3 = LEVELS["x86_64_v3"].requires


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (ALPHA, BETA):
        monkeypatch.setitem(FRAMEWORKS.loaded, each.kind, each)


BASE: dict[str, Any] = {
    "meltrepro": 1,
    "name": "test",
    "models": {"m": {"source": {"file": "m.gguf"}, "chat_template": "chatml", "quantizations": ["q8_0"]}},
    "frameworks": {"alpha": {"release": "2024-02-27"}},
    "workloads": {"chat": {"conversations": [["Hi"]]}},
}


def merged(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def plan(
    folder: Path,
    changes: Mapping[str, Any] = {},
    *,
    devices: Mapping[str, DeviceFacts] | None = None,
    sizes: Sizes | None = None,
    only: list[str] | None = None,
) -> Plan:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(merged(BASE, changes), sort_keys=False))
    loaded = load_manifest(path)
    return make_plan(loaded, devices if devices is not None else {"host": HOST}, sizes, only or [])


# -- the matrix ---------------------------------------------------------------------------------------------------


def test_the_matrix_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        {
            "models": {
                "m": {"quantizations": ["q8_0", "q4_0"]},
                "n": {**BASE["models"]["m"], "quantizations": ["as-is"]},
            },
            "frameworks": {"again": {"kind": "alpha", "release": "2024-02-27"}},
            "targets": {"one": {"threads": 1}, "two": {"threads": 2, "isa": "old"}},
            "workloads": {"long": {"conversations": [["Hi"]]}},
        },
        devices={"one": HOST, "two": HOST},
    )
    expected = [
        "/".join((*model, *rest))
        for model in [("m", "q8_0"), ("m", "q4_0"), ("n", "as-is")]
        for rest in product(["alpha", "again"], ["one", "two"], ["chat", "long"])
    ]
    assert [cell.id for cell in made.cells] == expected
    assert made.skipped == ()
    assert [node.id for node in made.models] == [
        f"{model}/{framework}" for model in ["m/q8_0", "m/q4_0", "n/as-is"] for framework in ["alpha", "again"]
    ]
    assert [node.id for node in made.bundles] == [
        f"{framework}/{purpose}"
        for framework in ["alpha", "again"]
        for purpose in ["run/new", "run/old", "quantize/new"]
    ]


def test_nothing_to_quantize_needs_no_quantizer(tmp_path: Path) -> None:
    made = plan(tmp_path, {"models": {"m": {"quantizations": ["as-is"]}}})
    assert [node.id for node in made.bundles] == ["alpha/run/new"]


def test_levels_that_were_asked_for_are_built_too(tmp_path: Path) -> None:
    made = plan(tmp_path, {"frameworks": {"alpha": {"options": {"isas": ["arm", "new"]}}}})
    assert [node.id for node in made.bundles] == ["alpha/run/new", "alpha/run/arm", "alpha/quantize/new"]


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    source = {"git": "https://example.org/alpha", "commit": "d" * 40}
    made = plan(tmp_path, {"frameworks": {"mine": {"kind": "alpha", "source": source}}}, only=["*/mine/*"])
    release = made.bundles[0].release
    assert (release.commit, set(release.sources)) == ("d" * 40, {"source.tar.gz"})
    assert release.name == "custom-dddddddddddd"


def test_only(tmp_path: Path) -> None:
    changes = {"models": {"m": {"quantizations": ["q8_0", "q4_0", "f16"]}}}
    assert [c.quantization for c in plan(tmp_path, changes, only=["*/q4_0/*", "m/f*"]).cells] == ["q4_0", "f16"]
    with pytest.raises(UsageError, match="'\\*/q5/\\*'") as caught:
        plan(tmp_path, changes, only=["*/q4_0/*", "*/q5/*"])
    assert "m/q8_0/alpha/host/chat" in str(caught.value.hint)


def test_only_leaves_out_without_a_word(tmp_path: Path) -> None:
    changes = {"models": {"m": {"quantizations": ["q8_0", "int4"]}}, "frameworks": {"beta": {"release": "2024-02-27"}}}
    made = plan(tmp_path, changes, only=["*/alpha/*"])
    assert [cell.id for cell in made.cells] == ["m/q8_0/alpha/host/chat"]
    assert [skip.cell_id for skip in made.skipped] == ["m/int4/alpha/host/chat"]


# -- names that nobody knows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "message", "suggestion"),
    [
        ({"frameworks": {"alfa": {"release": "1"}}}, "frameworks.alfa", "unknown framework 'alfa'", "alpha"),
        ({"frameworks": {"x": {"kind": "aplha", "release": "1"}}}, "frameworks.x.kind", "unknown framework", "alpha"),
        (
            {"frameworks": {"alpha": {"release": "2024-02-28"}}},
            "frameworks.alpha.release",
            "unknown release",
            "2024-02-27",
        ),
        (
            {"frameworks": {"alpha": {"options": {"isas": ["nwe"]}}}},
            "frameworks.alpha.options.isas[0]",
            "unknown CPU level",
            "new",
        ),
        (
            {"models": {"m": {"quantizations": ["q8_0", "q4_O"]}}},
            "models.m.quantizations[1]",
            "unknown quantization",
            "q4_0",
        ),
        ({"models": {"m": {"chat_template": "chatlm"}}}, "models.m.chat_template", "unknown chat template", "chatml"),
        ({"targets": {"host": {"isa": "odl"}}}, "targets.host.isa", "unknown CPU level", "old"),
    ],
)
def test_an_unknown_name(tmp_path: Path, changes: dict[str, Any], field: str, message: str, suggestion: str) -> None:
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, changes)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert message in problem.message
    assert suggestion in str(problem.suggestion)
    line = (tmp_path / "spec.yaml").read_text().splitlines()[problem.line - 1]
    assert field.rsplit(".", 1)[-1].split("[")[0] in line or line.strip().startswith("- ")


def test_a_limit_of_thinking_needs_a_model_that_thinks(tmp_path: Path) -> None:
    limit = {"workloads": {"chat": {"max_thinking_tokens": 64}}}
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, limit)
    (problem,) = caught.value.problems
    assert problem.field == "workloads.chat.max_thinking_tokens"
    assert "limits nothing" in problem.message and "models.NAME.thinking" in str(problem.suggestion)
    assert plan(tmp_path, {**limit, "models": {"m": {"thinking": {}}}}).cells


def test_all_unknown_names_at_once(tmp_path: Path) -> None:
    changes = {
        "models": {"m": {"chat_template": "x", "quantizations": ["q1", "q2"]}},
        "frameworks": {"alpha": {"release": "1", "options": {"isas": ["a", "b"]}}},
        "targets": {"host": {"isa": "c"}},
    }
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, changes)
    assert len(caught.value.problems) == 7


# -- what is skipped ----------------------------------------------------------------------------------------------


def reason(made: Plan) -> str:
    assert made.cells == ()
    (skip,) = made.skipped
    return skip.reason


def test_a_26_gb_model_on_a_24_gb_target(tmp_path: Path) -> None:
    """Said before anything is fetched, from parameters and bits per weight alone."""
    made = plan(tmp_path, {"models": {"m": {"parameters": 13e9, "quantizations": ["f16"]}}})
    said = reason(made)
    assert said.startswith("needs 26.")
    assert said.endswith(" GB of memory, target host has 24.0 GB")
    with pytest.raises(PlanError, match=r"m/f16/alpha/host/chat: needs 26\.\d GB"):
        require_cells(made)


def test_it_fits_where_there_is_more_memory(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 13e9, "quantizations": ["f16"]}}}
    made = plan(tmp_path, changes, devices={"host": replace(HOST, memory_bytes=64 * 10**9)})
    assert len(made.cells) == 1


def test_an_exact_size_wins_over_the_estimate(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 1e6}}}
    made = plan(tmp_path, changes, sizes=Sizes(weights={"m/q8_0/alpha": 30 * 10**9}))
    assert "needs 30." in reason(made)


def test_a_model_of_unknown_size_is_tried(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.estimate.peak_memory_bytes == {"m/q8_0/alpha/host/chat": None}
    assert made.estimate.disk_bytes is None


def test_a_long_context_costs_memory(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 7e9}}}
    short = plan(tmp_path, changes).estimate.peak_memory_bytes["m/q8_0/alpha/host/chat"]
    long = plan(tmp_path, merged(changes, {"workloads": {"chat": {"context": 32768}}})).estimate
    assert (long.peak_memory_bytes["m/q8_0/alpha/host/chat"] or 0) > (short or 0) + 10**9


def test_a_context_longer_than_the_models(tmp_path: Path) -> None:
    made = plan(tmp_path, {"models": {"m": {"context": 2048}}, "workloads": {"chat": {"context": 4096}}})
    assert reason(made) == "needs a context of 4096 tokens, model m has 2048"


def test_a_full_disk(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 1e9}}}
    small = {"host": replace(HOST, disk_free_bytes=10**9)}
    assert reason(plan(tmp_path, changes, devices=small)) == "needs 1.1 GB on disk, target host has 1.0 GB free"
    assert plan(tmp_path, changes, devices=small, sizes=Sizes(stored=frozenset({"m/q8_0/alpha"}))).cells


SYNTHETIC = {
    "models": {"m": {"source": {"synthetic": "llama-2-13b", "seed": 1}, "quantizations": ["as-is", "q4_K"]}},
    "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
}


def plan_synthetic(folder: Path, sizes: Sizes | None = None, *, context: int = 4096, **host: Any) -> Plan:
    """A plan for the shape of Llama-2 13B with the framework that knows its sizes."""
    path = folder / "spec.yaml"
    document = merged(BASE, SYNTHETIC)
    document["models"]["m"]["source"].pop("file")
    document["frameworks"].pop("alpha")
    document["workloads"]["chat"]["context"] = context
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return make_plan(load_manifest(path), {"host": replace(HOST, **{"features": V3, **host})}, sizes)


def test_synthetic_weights_are_planned_to_the_byte(tmp_path: Path) -> None:
    shape, source = SHAPES["llama-2-13b"], SyntheticSource(synthetic="llama-2-13b", seed=1)
    quantized, whole = model_bytes(shape, "q4_K", "2024-02-27"), model_bytes(shape, "as-is", "2024-02-27")
    assert quantized is not None and whole is not None
    made = plan_synthetic(tmp_path, Sizes(made={source: whole}), memory_bytes=64 * 10**9)
    working = estimate.WORKING_BYTES + 512 * estimate.BATCH_TOKEN_BYTES
    assert made.estimate.peak_memory_bytes == {
        f"m/{name}/llama.cpp/host/chat": size + 4096 * 819200 + working
        for name, size in (("as-is", whole), ("q4_K", quantized))
    }
    assert made.estimate.disk_bytes is None  # the framework's own source is not known yet
    known = Sizes(made={source: whole}, downloads=dict.fromkeys(made.bundles[0].sources.values(), 0))
    made = plan_synthetic(tmp_path, known, memory_bytes=64 * 10**9)
    assert made.estimate.download_bytes == 0
    assert made.estimate.disk_bytes == whole + quantized + 2 * estimate.BUNDLE_BYTES  # as-is is the source itself


@pytest.mark.parametrize("form", ["", "folded"])
def test_synthetic_weights_that_do_not_fit_are_not_made(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever format the framework loads them."""
    monkeypatch.setattr(GgufWeights, "format", form)
    shape, source = SHAPES["llama-2-13b"], SyntheticSource(synthetic="llama-2-13b", seed=1, format=form)
    whole = model_bytes(shape, "as-is", "2024-02-27") or 0
    made = plan_synthetic(tmp_path)
    assert [cell.quantization for cell in made.cells] == ["q4_K"]
    assert [skip.reason for skip in made.skipped] == ["needs 29.5 GB of memory, target host has 24.0 GB"]
    made = plan_synthetic(tmp_path, Sizes(made={source: whole}, free_bytes=30 * 10**9), memory_bytes=64 * 10**9)
    assert [cell.quantization for cell in made.cells] == ["as-is"]
    assert [skip.reason for skip in made.skipped] == [
        "needs 7.9 GB in the store to be made, its disk has 30.0 GB free, 26.0 GB of it for the models before it"
    ]
    made = plan_synthetic(tmp_path, Sizes(made={source: whole}, free_bytes=30 * 10**9))  # too little memory for as-is
    assert [skip.reason.partition(" of memory")[0] for skip in made.skipped] == [
        "needs 29.5 GB",
        "needs 33.9 GB in the store to be made, its disk has 30.0 GB free",
    ]
    assert len(plan_synthetic(tmp_path, Sizes(free_bytes=30 * 10**9), memory_bytes=64 * 10**9).cells) == 2


def test_the_context_of_a_shape_is_known(tmp_path: Path) -> None:
    made = plan_synthetic(tmp_path, context=4097)
    assert {skip.reason for skip in made.skipped} == {"needs a context of 4097 tokens, model m has 4096"}


def test_a_disk_of_a_device_that_many_models_fill_together(tmp_path: Path) -> None:
    changes = {
        "models": {"m": {"parameters": 1e9, "quantizations": ["q8_0", "f16"]}},
        "targets": {"host": {}, "board": {"kind": "linux", "lab": "jetson"}},
    }
    small = replace(HOST, disk_free_bytes=25 * 10**8)
    made = plan(tmp_path, changes, devices={"host": small, "board": replace(small, kind="linux")})
    assert len(made.cells) == 4
    (warning,) = made.warnings  # the host reads what the store has
    assert "2 models for target board need 3.1 GB on disk together, 2.5 GB are free" in warning


def test_the_stores_disk_is_shared_out_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 1e9, "quantizations": ["f16", "q8_0", "q4_0"]}}}
    made = plan(tmp_path, changes, sizes=Sizes(free_bytes=29 * 10**8))
    assert [cell.quantization for cell in made.cells] == ["f16", "q4_0"]
    assert [skip.reason for skip in made.skipped] == [
        "needs 1.1 GB in the store to be made, its disk has 2.9 GB free, 2.0 GB of it for the models before it"
    ]
    here = Sizes(free_bytes=0, stored=frozenset({"m/f16/alpha", "m/q8_0/alpha", "m/q4_0/alpha"}))
    assert len(plan(tmp_path, changes, sizes=here).cells) == 3


@pytest.mark.parametrize(
    ("changes", "device", "expected"),
    [
        (
            {"targets": {"host": {"isa": "new"}}},
            {"features": frozenset({"sse2"})},
            "it has no build for x86_64",
        ),
        ({}, {"features": frozenset()}, "it has no build for x86_64"),
        ({}, {"arch": "riscv64"}, "it has no build for riscv64"),
        (
            {"targets": {"host": {"isa": "arm"}}},
            {},
            "it has no build for x86_64",
        ),
    ],
)
def test_a_cpu_that_cannot(tmp_path: Path, changes: dict[str, Any], device: dict[str, Any], expected: str) -> None:
    assert (
        reason(plan(tmp_path, changes, devices={"host": replace(HOST, **device)}))
        == f"framework alpha on target host: {expected}"
    )


def test_an_older_cpu_gets_an_older_level(tmp_path: Path) -> None:
    made = plan(tmp_path, devices={"host": replace(HOST, features=frozenset({"sse2"}))})
    assert made.cells[0].variant == OLD


def test_a_target_that_could_not_be_reached(tmp_path: Path) -> None:
    assert reason(plan(tmp_path, devices={})) == "target host could not be reached"


def test_a_quantization_that_only_another_framework_has(tmp_path: Path) -> None:
    changes = {"models": {"m": {"quantizations": ["q8_0", "int4"]}}, "frameworks": {"beta": {"release": "2024-02-27"}}}
    made = plan(tmp_path, changes)
    assert [cell.id for cell in made.cells] == ["m/q8_0/alpha/host/chat", "m/int4/beta/host/chat"]
    assert {skip.reason for skip in made.skipped} == {
        "framework beta does not offer quantization q8_0",
        "framework alpha does not offer quantization int4",
    }


# -- estimates ----------------------------------------------------------------------------------------------------


def test_what_is_left_to_fetch_and_to_store(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 8e9 / 8.5}}}
    model = FileSource(file="m.gguf")
    sizes = Sizes(downloads={SOURCE: 1000, model: 2000})
    first = plan(tmp_path, changes, sizes=sizes).estimate
    assert first.download_bytes == 3000
    assert first.disk_bytes == 3000 + 10**9 + 2 * estimate.BUNDLE_BYTES
    everything = frozenset({"m/q8_0/alpha", "alpha/run/new", "alpha/quantize/new"})
    later = plan(tmp_path, changes, sizes=replace(sizes, stored=everything)).estimate
    assert (later.download_bytes, later.disk_bytes) == (0, 0)
    assert plan(tmp_path, changes, sizes=Sizes(downloads={SOURCE: 1})).estimate.download_bytes is None


@pytest.mark.parametrize(
    ("parameters", "bytes_per_token"),
    [(6.74e9, 524288), (1.1e9, 22528), (135e6, 23040), (7.24e9, 131072), (2.51e9, 18432)],
    ids=["llama-2-7b", "tinyllama", "smollm2", "mistral-7b", "gemma-2b"],
)
def test_the_guess_at_the_kv_cache_is_of_the_right_order(parameters: float, bytes_per_token: int) -> None:
    assert 1 / 4.5 < estimate.kv_cache_bytes(parameters, 1000) / (bytes_per_token * 1000) < 4.5


# -- properties ---------------------------------------------------------------------------------------------------

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=4, unique=True)


@settings(deadline=None)
@given(
    models=NAMES,
    quantizations=st.lists(st.sampled_from(["q8_0", "q4_0", "int4", "as-is"]), min_size=1, unique=True),
    frameworks=st.dictionaries(
        st.text("xyz", min_size=1, max_size=3), st.sampled_from(["alpha", "beta"]), min_size=1, max_size=3
    ),
    targets=NAMES,
    workloads=NAMES,
    reachable=st.integers(0, 15),
    parameters=st.none() | st.floats(1e6, 1e11),
)
def test_every_point_is_a_cell_or_a_skip(
    tmp_path_factory: pytest.TempPathFactory,
    models: list[str],
    quantizations: list[str],
    frameworks: dict[str, str],
    targets: list[str],
    workloads: list[str],
    reachable: int,
    parameters: float | None,
) -> None:
    known = {"q8_0", "q4_0"} if "alpha" in frameworks.values() else set()
    known |= {"int4"} if "beta" in frameworks.values() else set()
    quantizations = [name for name in quantizations if name in known | {"as-is"}] or ["as-is"]
    model: dict[str, Any] = {"source": {"file": "x"}, "chat_template": "plain", "quantizations": quantizations}
    if parameters is not None:
        model["parameters"] = parameters
    document = {
        "meltrepro": 1,
        "name": "test",
        "models": dict.fromkeys(models, model),
        "frameworks": {name: {"kind": kind, "release": "2024-02-27"} for name, kind in frameworks.items()},
        "targets": {name: {"kind": "host"} for name in targets},
        "workloads": {name: {"conversations": [["Hi"]]} for name in workloads},
    }
    path = tmp_path_factory.mktemp("plan") / "spec.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    devices = {name: HOST for i, name in enumerate(targets) if reachable >> i & 1}
    made = make_plan(load_manifest(path), devices)
    points = ["/".join(point) for point in product(models, quantizations, frameworks, targets, workloads)]
    cells, skips = [cell.id for cell in made.cells], [skip.cell_id for skip in made.skipped]
    assert sorted(cells + skips) == sorted(points)
    assert cells == [point for point in points if point in set(cells)], "in the order of the manifest"
    nodes = {node.id for node in made.models}
    assert len(nodes) == len(made.models), "nothing is built twice"
    assert nodes == {f"{c.model_name}/{c.quantization}/{c.framework_name}" for c in made.cells}
    bundles = {node.id for node in made.bundles}
    assert len(bundles) == len(made.bundles)
    assert {f"{c.framework_name}/run/{c.variant.name}" for c in made.cells} <= bundles
    for cell in made.cells:
        assert cell.variant.requires <= HOST.features
        assert (made.estimate.peak_memory_bytes[cell.id] or 0) <= HOST.memory_bytes
    assert plan_digest(made) == plan_digest(make_plan(load_manifest(path), devices))
    assert [cell["id"] for cell in plan_document(made)["cells"]] == cells


def test_the_digest_follows_what_is_run_and_not_what_is_said(tmp_path: Path) -> None:
    changes = {"models": {"m": {"parameters": 1e9, "quantizations": ["q8_0", "f16"]}}}
    base = plan_digest(plan(tmp_path, changes))
    assert plan_digest(plan(tmp_path, changes, sizes=Sizes(weights={"m/q8_0/alpha": 5}))) == base
    assert plan_digest(plan(tmp_path, changes, only=["*/q8_0/*"])) != base
    assert plan_digest(plan(tmp_path, merged(changes, {"targets": {"host": {"isa": "old"}}}))) != base


def test_a_source_is_counted_once(tmp_path: Path) -> None:
    changes = {"models": {"same": BASE["models"]["m"]}}
    made = plan(tmp_path, changes, sizes=Sizes(downloads={SOURCE: 1, FileSource(file="m.gguf"): 10}))
    assert len(made.models) == 2
    assert made.estimate.download_bytes == 11
