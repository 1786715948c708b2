"""The table of what each release knows says what the releases' own sources say."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.frameworks.llamacpp.knowledge import of_release, of_source
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.options import KNOBS, OLD
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher

STRUCTURES = ("llama_model_params", "llama_context_params", "ggml_threadpool_params")
ELSEWHERE = {
    "n_ctx": "context of a workload",
    "n_batch": "batch of a workload",
    "n_threads": "threads of a target",
    "seed": "sampling is the runner's",
}
"""Fields that other keys of a manifest set."""
EXCEPTIONS = {
    "progress_callback": "a callback, by which the runner stops loading",
    "progress_callback_user_data": "of a callback",
    "cb_eval": "a callback, which profiles take",
    "cb_eval_user_data": "of a callback",
    "abort_callback": "a callback that nothing needs",
    "abort_callback_data": "of a callback",
    "devices": "follows from split_mode, main_gpu and tensor_split, and is reported",
    "kv_overrides": "would make another model of a file under its digest",
    "vocab_only": "loads no weights",
    "no_alloc": "loads no weights",
    "check_tensors": "looks for damage, which digests tell",
    "load_mtp": "of drafts that a model makes itself",
    "n_seq_max": "as many as the `sequences` of the workload",
    "n_rs_seq": "of sequences that are taken back",
    "kv_unified": "each sequence has a context of its own, as by default",
    "n_outputs_max": "follows from the batch",
    "n_outputs_max_per_seq": "follows from the batch",
    "ctx_type": "of drafts that a model makes itself",
    "ctx_other": "of drafts that a model makes itself",
    "pooling_type": "of embeddings",
    "attention_type": "of embeddings",
    "embeddings": "of embeddings",
    "embedding": "of embeddings",
    "do_pooling": "of embeddings",
    "samplers": "sampling is the runner's",
    "n_samplers": "sampling is the runner's",
    "no_perf": "counts time for llama.cpp's own log",
    "defrag_thold": "nothing is taken out of a cache but all of it; deprecated since",
    "mul_mat_q": "deprecated: always true",
    "logits_all": "deprecated",
    "paused": "whether threads wait when they are made; the runner's affair",
}
"""Fields that nobody can set, with the reason."""


def source_of(release: str) -> Path:
    here = settings.load()
    source = next(iter(RELEASES[release].sources.values()))
    return Fetcher(Store(here.cache / "store"), here, silent).get(source)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_knows_what_its_source_says(name: str) -> None:
    assert of_release(name) == of_source(source_of(name))


def headers(release: str) -> str:
    """The release's headers without comments."""
    with tarfile.open(source_of(release)) as archive:
        members = [each for each in archive if re.search(r"/vendor/llama\.cpp/.*(llama|ggml)\.h$", each.name)]
        texts = [file.read().decode() for each in members if (file := archive.extractfile(each)) is not None]
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", "\n".join(texts), flags=re.DOTALL)


def fields(text: str) -> Iterator[tuple[str, str]]:
    """Structure and name of each parameter."""
    for structure in STRUCTURES:
        body = re.search(rf"struct {structure} \{{(.*?)\}}", text, re.DOTALL)
        for line in body[1].split(";") if body is not None else ():
            if line.strip():
                found = re.search(r"(\w+)\s*(\[\w+\])?\s*$", line)
                assert found is not None, line
                yield structure, found[1]


def test_every_parameter_of_a_release_is_an_option_or_has_a_reason() -> None:
    found = {release: list(fields(headers(release))) for release in RELEASES}
    assert [len({structure for structure, _ in found[release]}) for release in (OLD, "2026-10-01")] == [2, 3]
    parameters = {release: {name for _, name in each} for release, each in found.items()}
    assert min(map(len, parameters.values())) > 30
    known = set[str]().union(*parameters.values())
    set_by = {field for knob in KNOBS.values() for field in knob.sets.split()}
    assert known == set_by | ELSEWHERE.keys() | EXCEPTIONS.keys()
    assert not set_by & EXCEPTIONS.keys() and not ELSEWHERE.keys() & (set_by | EXCEPTIONS.keys())
    for name, knob in KNOBS.items():
        assert knob.new == (bool(knob.sets) and not set(knob.sets.split()) & parameters[OLD]), name
