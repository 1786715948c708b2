"""What the unquantized model expects is made once, whole, or not at all: a scorer that fails, dies, or leaves a part."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.build import log
from meltrepro.build.model import Execution, Exit, Recipe
from meltrepro.build.pipeline import Builder
from meltrepro.errors import BuildError, EngineError, MeltreproError, SourceError, StoreError
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.manifest.sources import FileSource
from meltrepro.plan.model import Costs, LogitsNode, Plan
from meltrepro.steps import Sink
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from tests.support.building import tools
from tests.support.frameworks import bundle, model
from tests.support.manifests import GOOD, load

CONTEXT, CHUNKS, VOCABULARY = 16, 2, 5
RUN = bundle("x86_64_v2", "2024-02-27", name="llama.cpp")
MODEL = model(FileSource(file="model.gguf"), "as-is", "2024-02-27", name="llama.cpp")
TEXT = TextWorkload(
    task="kl-divergence", text=FileSource(file="text.txt"), context=CONTEXT, chunks=CHUNKS, against="as-is"
)
NODE = LogitsNode(f"{MODEL.id}/logits/text", MODEL, RUN, TEXT)
SAID = "perplexity: calculating\nFinal estimate: PPL = 9.0 +/- 1.0\n"


def whole(context: int = CONTEXT, chunks: int = CHUNKS, vocabulary: int = VOCABULARY) -> bytes:
    """A file as the scorer writes it: of 7 tokens in a window of 16, each with 5 entries, which are made 6, and 4 more."""
    scored = context - 1 - context // 2
    each = 4 * context + 2 * scored * (2 * ((vocabulary + 1) // 2) + 4)
    return struct.pack("<8s3i", b"_logits_", context, vocabulary, chunks) + bytes(chunks * each)


@dataclass
class Scorer:
    """An engine in which the scorer ends so."""

    content: bytes | None = None
    status: int = 0
    said: str = SAID
    name: str = "fake"
    ran: int = 0

    def version(self) -> str:
        return "fake 1"

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        raise AssertionError("nothing is built")

    def execute(self, execution: Execution) -> Exit:
        self.ran += 1
        assert execution.stdout is not None
        execution.stdout.parent.mkdir(parents=True, exist_ok=True)
        execution.stdout.write_text(self.said)
        if self.content is not None:
            (execution.writable["/out"] / "logits").write_bytes(self.content)
        return Exit(self.status)

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        raise AssertionError("nothing is watched")

    def stop_strays(self, owner: str) -> int:
        return 0


Make = Callable[[Scorer], Builder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Builders of one store, which has the bundle and the model."""
    store = Store(tmp_path / "cache" / "store")
    (tmp_path / "model.gguf").write_bytes(b"GGUF weights")
    (tmp_path / "text.txt").write_text("A harbour in the morning.\n" * 20)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").write_text("{}")
    pack_tree(tmp_path / "out", tmp_path / "tar", prefix="bundle")
    digests = {RUN.id: store.put_file(tmp_path / "tar", move=True), MODEL.id: store.put_file(tmp_path / "model.gguf")}
    artifacts = {name: LockedArtifact(key="1" * 64, digest=digest) for name, digest in digests.items()}
    lock = Lock(lock=1, manifest="0" * 64, artifacts=artifacts)

    def builder(scorer: Scorer) -> Builder:
        return Builder(tools(tmp_path, lock, scorer), recorded=True)

    return builder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(load(tmp_path, GOOD).manifest, (), (), (RUN,), (MODEL,), Costs(None, None, {}), logits=(NODE,))


def test_what_is_whole_is_made_once(make: Make, plan: Plan) -> None:
    scorer = Scorer(whole())
    first = make(scorer).build(plan).artifacts[NODE.id]
    assert (first.kind, first.digest) == ("logits", hashlib.sha256(whole()).hexdigest())
    assert make(scorer).build(plan).artifacts[NODE.id].digest == first.digest
    assert scorer.ran == 1


@pytest.mark.parametrize(
    ("scorer", "error", "told"),
    [
        (Scorer(None, 1, "failed to load model"), BuildError, "ended with status 1:\nfailed to load model"),
        (Scorer(whole(), 1), BuildError, "ended with status 1"),
        (Scorer(whole(), 137, "killed"), EngineError, r"was killed \(SIGKILL\)"),
        (Scorer(None), BuildError, "ended with status 0"),
        (Scorer(whole(), said="[1]9.0,"), BuildError, "the scorer came to no estimate"),
        (Scorer(whole()[:20], said="you need at least 32 tokens"), BuildError, "you need at least 32 tokens"),
        (Scorer(b""), BuildError, "no file of expectations: it has 0 bytes"),
        (Scorer(b"x" * 500), BuildError, "no file of expectations"),
        (Scorer(whole()[:-1]), BuildError, "is not whole: "),
        (Scorer(whole() + b"x"), BuildError, "is not whole: "),
        (Scorer(whole(chunks=1)), BuildError, "wrote 1 windows of 16 tokens, and was asked for 2 windows of 16"),
        (Scorer(whole(context=32)), BuildError, "wrote 2 windows of 32 tokens"),
    ],
)
def test_a_scorer_that_fails_leaves_nothing(
    make: Make, plan: Plan, scorer: Scorer, error: type[MeltreproError], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        make(scorer).build(plan)
    assert caught.value.hint
    mended = Scorer(whole())
    assert make(mended).build(plan).artifacts[NODE.id].digest == hashlib.sha256(whole()).hexdigest()
    assert mended.ran == 1, "nothing of the failure was kept"


def test_a_part_on_a_full_disk_is_told_as_a_full_disk(make: Make, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "free_bytes", lambda folder: 0)
    with pytest.raises(StoreError, match="No space left on device"):
        make(Scorer(whole()[:-5])).build(plan)


def test_a_text_that_is_not_there(make: Make, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "text.txt").unlink()
    with pytest.raises(SourceError, match=r"text\.txt does not exist"):
        make(Scorer(whole())).build(plan)


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 49152])
def test_as_many_windows_as_the_text_fills(tmp_path: Path, vocabulary: int) -> None:
    path = tmp_path / "logits"
    path.write_bytes(whole(chunks=3, vocabulary=vocabulary))
    PerplexityScorer().check_logits(TEXT.model_copy(update={"chunks": None}), path, SAID)
