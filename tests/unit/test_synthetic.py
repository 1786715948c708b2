"""Synthetic weights: the same bytes everywhere, a file that loaders can read, a tokenizer that loses nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import get_args

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro.errors import DigestMismatch, ManifestError, SourceError, StoreError
from meltrepro.frameworks.llamacpp import synthetic
from meltrepro.frameworks.llamacpp.synthetic import GgufWeights, file_bytes, header, header_bytes, pieces, tensors_of
from meltrepro.frameworks.llamacpp.untie import untie
from meltrepro.frameworks.llamacpp.vocabulary import CONTROL, vocabulary
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.shapes import SHAPES, ModelShape, ShapeName
from meltrepro.manifest.sources import SyntheticSource
from meltrepro.settings import Settings
from meltrepro.steps import Step
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.store.gc import Policy, collect
from meltrepro.store.source import key_of
from tests.support.examples import examples

TINY: tuple[ShapeName, ...] = ("tiny-llama", "tiny-gemma", "tiny-stablelm")
DIGESTS = {  # of seed 1; another value means another generator, which needs another version
    "tiny-llama": "1d2852918f3e54730b7c18c8b1fb20545b8bfa70f523792650022db9a40b3073",
    "tiny-gemma": "39984974239fda267baca386ab60a68a93399744a275318c36075c45cd3dba5c",
    "tiny-stablelm": "9f5bc778fe8704590664e4e1a16a608a27cd99b1fa73c466c6c30a545419905c",
}


def content(shape: ModelShape, seed: int = 1) -> bytes:
    return b"".join(bytes(piece) for piece in pieces(shape, seed))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ShapeName], Path]:
    folder = tmp_path_factory.mktemp("synthetic")

    def file(name: ShapeName) -> Path:
        path = folder / f"{name}.gguf"
        if not path.exists():
            path.write_bytes(content(SHAPES[name]))
        return path

    return file


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_the_bytes_are_fixed(name: ShapeName, files: Callable[[ShapeName], Path]) -> None:
    written = files(name).read_bytes()
    assert hashlib.sha256(written).hexdigest() == DIGESTS[name]
    assert len(written) == file_bytes(SHAPES[name])


def philox(counter: int, key: int) -> list[int]:
    """Four 64-bit words of Philox 4x64 with ten rounds (Salmon et al., SC'11), in plain integers."""
    mask = 2**64 - 1
    words, keys = [counter & mask, counter >> 64, 0, 0], [key & mask, key >> 64]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [(second >> 64) ^ words[1] ^ keys[0], second & mask, (first >> 64) ^ words[3] ^ keys[1], first & mask]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return words


def test_weights_follow_from_the_definition_alone() -> None:
    """The first weights of the third matrix, whose rows have 256 weights, without NumPy."""
    shape, seed = SHAPES["tiny-llama"], 99
    index = [tensor.name for tensor in tensors_of(shape)].index("blk.0.attn_k.weight")
    offset = header_bytes(shape) + sum(t.elements * (2 if t.is_matrix else 4) for t in tensors_of(shape)[:index])
    written = content(shape, seed)[offset : offset + 64]
    raw = b"".join(word.to_bytes(8, "little") for block in (1, 2) for word in philox(block, index << 64 | seed))
    bits = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
    # Sign and mantissa as they come, two bits of the exponent above that of 2**-7.
    expected = b"".join(((each & 0x8FFF) + ((15 - 7) << 10)).to_bytes(2, "little") for each in bits)
    assert written == expected


def test_how_much_is_made_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_PIECE_WORDS", 1000)
    assert hashlib.sha256(content(SHAPES["tiny-llama"])).hexdigest() == DIGESTS["tiny-llama"]


@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_seed_decides_everything_but_the_layout(one: int, other: int) -> None:
    shape = SHAPES["tiny-llama"]
    first, second = (b"".join(map(bytes, islice(pieces(shape, seed), 3))) for seed in (one, other))
    assert (first == second) == (one == other)
    assert len(header(shape, one)) == header_bytes(shape)


@pytest.mark.parametrize("name", TINY)
def test_it_reads_back(name: ShapeName, files: Callable[[ShapeName], Path]) -> None:
    shape, reader = SHAPES[name], gguf.GGUFReader(files(name))
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.architecture"] == shape.arch
    assert fields[f"{shape.arch}.block_count"] == shape.layers
    assert fields[f"{shape.arch}.attention.head_count_kv"] == shape.kv_heads
    assert fields["meltrepro.synthetic.shape"] == name and fields["meltrepro.synthetic.seed"] == 1
    assert len(fields["tokenizer.ggml.tokens"]) == len(fields["tokenizer.ggml.token_type"]) == shape.vocabulary
    assert [(t.name, tuple(map(int, t.shape))) for t in reader.tensors] == [(t.name, t.dims) for t in tensors_of(shape)]


WIDE = ModelShape("tiny-llama", "llama", 256, 1, 512, 4, 2, 64, 2048, "f32")


@pytest.mark.parametrize(
    "shape", [*(SHAPES[name] for name in TINY), WIDE], ids=lambda shape: shape.arch + shape.weights
)
def test_every_weight_is_a_normal_number_of_a_sound_size(shape: ModelShape, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content(shape))
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        values = np.asarray(tensor.data, dtype=np.float64)
        if len(tensor.shape) == 1:
            assert set(np.unique(values)) == {0.0 if tensor.name.endswith(".bias") else 1.0}
            continue
        size = np.abs(values)
        assert np.isfinite(values).all() and size.min() >= 2.0**-14  # below lie the subnormal numbers of f16
        assert size.max() < 16 * size.min() * 1.01
        assert abs(values.mean()) < 0.05 * values.std()
        gain = values.std() * int(tensor.shape[0]) ** 0.5  # what a product with a row does to the size of a vector
        assert 0.4 < gain < 1.0, tensor.name


def test_gemma_needs_no_untying(files: Callable[[ShapeName], Path], tmp_path: Path) -> None:
    assert not untie(files("tiny-gemma"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in get_args(ShapeName) if SHAPES[name].tokenizer is None])
def test_every_piece_is_made_of_two_others_and_no_marker_is(name: ShapeName) -> None:
    """The release of 2024 takes every token for special that it cannot split into two others."""
    words = vocabulary(SHAPES[name])
    known = set(words.tokens)
    assert len(known) == len(words.tokens) == SHAPES[name].vocabulary == len(words.types)
    for token, kind in zip(words.tokens, words.types, strict=True):
        splits = any(token[:i] in known and token[i:] in known for i in range(1, len(token)))
        assert splits == (kind != CONTROL and len(token) > 1 and not token.startswith("<")), token


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"), min_size=1, max_size=80)
ENGLISH = "What is the difference between a recipe and a plan? I'd say: 3 eggs, flour; then wait!"


def spm(text: str) -> list[str]:
    """SentencePiece as llama.cpp does it: the pair with the best score first, then bytes for what is no piece."""
    words = vocabulary(SHAPES["tiny-gemma"])
    scores = dict(zip(words.tokens, words.scores, strict=True))
    parts = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not pairs:
            break
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [
        token
        for part in parts
        for token in ([part] if part in scores else [f"<0x{value:02X}>" for value in part.encode()])
    ]


@given(TEXTS)
def test_text_survives_its_tokens(text: str) -> None:
    tokens = spm(text)
    assert set(tokens) <= set(vocabulary(SHAPES["tiny-gemma"]).tokens)
    decoded = b"".join(
        bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.replace("\u2581", " ").encode()
        for token in tokens
    )
    assert decoded.decode() == text or "<0x" in text


def test_english_is_no_row_of_letters() -> None:
    tokens = spm(f" {ENGLISH}")
    assert "\u2581difference" in tokens and "\u2581the" in tokens
    assert len(tokens) < 2.2 * len(ENGLISH.split())


def test_pairs_are_joined_from_the_beginning_of_words() -> None:
    words = vocabulary(SHAPES["tiny-stablelm"])
    ranks = {merge: rank for rank, merge in enumerate(words.merges)}
    assert ranks["\u0120 t"] < ranks["\u0120t h"] < ranks["\u0120th e"] < ranks["t h"]
    assert len(words.merges) == len(
        [t for t, k in zip(words.tokens, words.types, strict=True) if len(t) > 1 and k == 1]
    )


# -- the source -------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, root: Path, *, offline: bool = True) -> None:
        self.steps: list[Step] = []
        self.store = Store(root / "store")
        at = Settings(cache=root, home=root, offline=offline, mirrors=None, jobs=1)
        self.fetcher = Fetcher(self.store, at, self.sink, weights={"": GgufWeights()})
        self.stop_at: str | None = None

    def sink(self, step: Step) -> None:
        self.steps.append(step)
        if step.phase == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


SOURCE = SyntheticSource(synthetic="tiny-llama")
PINNED = SyntheticSource(synthetic="tiny-llama", digest=DIGESTS["tiny-llama"])
KEY = "synthetic:tiny-llama:1:1"


def leftovers(store: Store) -> Iterator[Path]:
    for name in ("objects", "tmp", "partial"):
        yield from (path for path in (store.root / name).rglob("*") if path.is_file())


def test_the_first_pin_makes_it_and_later_ones_know_it(bench: Bench) -> None:
    pin = bench.fetcher.pin(SOURCE, Path())
    assert (pin.source, pin.digest, pin.size) == (KEY, DIGESTS["tiny-llama"], file_bytes(SHAPES["tiny-llama"]))
    assert [step.phase for step in bench.steps] == ["begin", "end"]
    assert bench.fetcher.pin(SOURCE, Path()) == pin and len(bench.steps) == 2
    assert bench.fetcher.get(SOURCE).read_bytes()[:4] == b"GGUF"


def test_a_declared_digest_is_taken_at_its_word_until_the_file_is_needed(bench: Bench) -> None:
    assert bench.fetcher.pin(PINNED, Path()).digest == PINNED.digest
    assert bench.steps == [] and list(leftovers(bench.store)) == []
    assert bench.fetcher.estimate(PINNED) == bench.fetcher.estimate(SOURCE) == 0
    bench.fetcher.get(PINNED)
    assert [step.subject for step in bench.steps] == [KEY, KEY]


def test_progress_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.store.synthetic._PROGRESS_BYTES", 1 << 20)
    bench.fetcher.get(SOURCE)
    told = [step for step in bench.steps if step.phase == "progress"]
    assert len(told) >= 3 and all(
        step.unit == "bytes" and step.total == file_bytes(SHAPES["tiny-llama"]) for step in told
    )


def test_another_digest_is_refused_and_nothing_stays(bench: Bench) -> None:
    wrong = SyntheticSource(synthetic="tiny-llama", digest="0" * 64)
    with pytest.raises(DigestMismatch, match=f"{KEY}.*{'0' * 64}.*{DIGESTS['tiny-llama']}") as caught:
        bench.fetcher.get(wrong)
    assert "another shape, seed or version" in (caught.value.hint or "")
    assert list(leftovers(bench.store)) == []


def test_an_interruption_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.store.synthetic._PROGRESS_BYTES", 1 << 20)
    bench.stop_at = "progress"
    with pytest.raises(KeyboardInterrupt):
        bench.fetcher.get(SOURCE)
    assert list(leftovers(bench.store)) == []
    bench.stop_at = None
    assert bench.fetcher.pin(SOURCE, Path()).digest == DIGESTS["tiny-llama"]


def test_a_full_disk_is_told_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.atomic.free_bytes", lambda path: 1_000_000)
    with pytest.raises(StoreError, match=r"No space left on device \(6\.9 MB needed, 1\.0 MB free\)"):
        bench.fetcher.get(SOURCE)
    assert list(leftovers(bench.store)) == []


def test_a_mirror_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF of somebody else")
    (tmp_path / "mirrors.yaml").write_text(f'mirrors: {{"{KEY}": other.gguf}}')
    at = Settings(cache=tmp_path, home=tmp_path, offline=True, mirrors=tmp_path / "mirrors.yaml", jobs=1)
    fetcher = Fetcher(Store(tmp_path / "store"), at, lambda step: None, weights={"": GgufWeights()})
    assert fetcher.pin(SOURCE, Path()).digest == DIGESTS["tiny-llama"]


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    benches = [Bench(tmp_path) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(lambda bench: bench.fetcher.get(PINNED), benches))
    assert len(set(paths)) == 1
    assert sum(step.phase == "begin" for bench in benches for step in bench.steps) == 1


def test_gc_takes_what_can_be_made_again_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    pin = bench.fetcher.pin(SOURCE, Path())
    other = bench.store.put_bytes(b"quantized")
    lock = tmp_path / "x.lock.yaml"
    lock.write_text(f"{pin.digest} {other}")
    bench.store.add_root(lock)
    decision = collect(bench.store, Policy())
    assert [(removal.kind, removal.digest) for removal in decision.removals] == [("synthetic weights", pin.digest)]
    assert not bench.store.has(pin.digest) and bench.store.has(other)
    assert bench.fetcher.known(SOURCE) == pin
    assert bench.fetcher.get(SOURCE).stat().st_size == pin.size


MANIFEST = """\
meltrepro: 1
name: x
models:
  m: {source: {synthetic: SHAPE}, chat_template: chatml, quantizations: [q4_0]}
frameworks: {llama.cpp: {release: "2024-02-27"}}
workloads: {chat: {conversations: [[Hi]]}}
"""


def test_a_shape_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(MANIFEST.replace("SHAPE", "tinylama-1.1b"))
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "x.yaml")
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (4, "models.m.source.synthetic")
    assert problem.suggestion == "did you mean 'tinyllama-1.1b'?"


def test_a_model_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(MANIFEST.replace("SHAPE", "gemma-2b"))
    model = load_manifest(tmp_path / "x.yaml").manifest.models["m"]
    assert model.synthetic and model.trained_context == 8192 and model.parameter_count == 2506172416
    (tmp_path / "x.yaml").write_text(MANIFEST.replace("synthetic: SHAPE", "file: x.gguf"))
    model = load_manifest(tmp_path / "x.yaml").manifest.models["m"]
    assert not model.synthetic and model.trained_context is None and model.parameter_count is None


def test_another_format_is_another_source() -> None:
    """Of the same shape and seed, for a framework that reads other files."""
    other = SOURCE.model_copy(update={"format": "folded"})
    assert key_of(other) == f"{KEY}:folded" and key_of(SOURCE) == KEY
    assert "format" not in SOURCE.model_dump()


def test_a_format_that_nobody_writes_is_refused(bench: Bench) -> None:
    with pytest.raises(SourceError, match="no framework here writes weights"):
        bench.fetcher.pin(SOURCE.model_copy(update={"format": "folded"}), Path())
