"""The seam of frameworks: what the rest asks of an inference engine, and nothing else knows one by name.

A framework is one object in `meltrepro.registry.FRAMEWORKS`. It says for which classes of devices it is built (`Variant`),
by which recipes, and how models are made for it. What it cannot do is a `Skip`, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import BaseModel, JsonValue

from meltrepro.errors import ModelError, RecordError, UsageError
from meltrepro.record.ids import RUN as RUN
from meltrepro.record.outcomes import SkipKind as SkipKind
from meltrepro.registry import FRAMEWORKS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from meltrepro.accuracy.questions import Question, Sheet
    from meltrepro.accuracy.scores import Score
    from meltrepro.build.model import Argument, Output, RecipeSource
    from meltrepro.chat.own import OwnTemplates
    from meltrepro.chat.template import ChatTemplate
    from meltrepro.manifest.accuracy import TextWorkload
    from meltrepro.manifest.shapes import ModelShape
    from meltrepro.manifest.sources import PypiSource, Source
    from meltrepro.manifest.targets import TargetOptions
    from meltrepro.record.trial import Mode, ScoringRequest
    from meltrepro.targets.base import DeviceFacts

AS_IS = "as-is"
"""The quantization that leaves a model as it is; every framework has it."""
AUTO = "auto"
"""The CPU level of a target whose variant the framework is to choose."""
Bring = Callable[["PypiSource", "PypiSource"], Path]
"""Brings the member of an archive, which it names by pattern and digest, out of the archive that it is given besides."""
Purpose = str
"""What a bundle is for: `run`, or what a framework's model steps ask for by one of the names in `record.ids.PURPOSES`."""


class ContextUse(StrEnum):
    """What an engine may be able to do with a context besides filling it; each is a key of workloads."""

    restore = "restore"
    sequences = "sequences"
    speculate = "speculate"


@dataclass(frozen=True)
class Skip:
    """Why something cannot be had. The reason is for people; whoever decides looks at the kind."""

    kind: SkipKind
    reason: str


@dataclass(frozen=True)
class Look:
    """What a release makes of a model's files, as far as they are here."""

    refusal: str | None = None
    """Why it cannot load or convert them; `None` where it can, or nobody can tell."""
    warnings: Sequence[str] = ()
    """What may go wrong all the same."""
    context: int | None = None
    """Longest context that the model was trained for, in tokens, where its files say so."""
    unmade: Mapping[str, str] = field(default_factory=dict)
    """Why single quantizations cannot be made of them, by name."""
    chat: OwnTemplates | None = None
    """The chat templates that they bring; `None` where nobody can tell."""


@dataclass(frozen=True)
class Release:
    """A pinned version of a framework."""

    name: str
    commit: str
    date: str
    sources: Mapping[str, Source]
    """Inputs of its recipes by name, each with its digest; the first is the framework itself."""


@dataclass(frozen=True)
class Variant:
    """How a framework is built for a class of devices."""

    name: str
    """Unique among everything that is built of one release; part of ids: x86_64_v3, armv8_2-android29."""
    level: str
    """The CPU level in it, by which `targets.NAME.isa` asks for it; several variants may have one."""
    triple: str
    """What it is compiled for. Its first part is the machine, as `uname -m` spells it."""
    libc: str
    """The C library of its bundles, for records."""
    requires: frozenset[str] = frozenset()
    """CPU features as the kernel spells them in /proc/cpuinfo."""
    accelerator: str = ""
    """What else than the CPU its trials compute on; empty for nothing."""
    software: bool = False
    """Whether that is a driver that computes on the CPU: fit to see that everything works, never for speed."""
    data: Mapping[str, JsonValue] = field(default_factory=dict, hash=False)
    """What the framework's own recipes want to know of it."""

    @property
    def machine(self) -> str:
        return self.triple.partition("-")[0]

    def missing(self, features: Collection[str]) -> tuple[str, ...]:
        """What a CPU lacks to run it, in alphabetical order."""
        return tuple(sorted(self.requires.difference(features)))


@dataclass(frozen=True)
class ModelStep:
    """One step from a source to the model file or folder that a runner loads."""

    name: str
    purpose: Purpose | None = None
    """Of the bundle whose command it is; `None` for a step that this process does with `run`."""
    command: tuple[str, ...] = ()
    """Turns `/source` into `/out/model`; a part of the model's identity, as is the bundle."""
    output: Output = "file"
    per_variant: bool = False
    """Whether what comes out fits one variant alone, as the command says."""
    shared: bool = False
    """Whether what comes out is kept by itself, because models of several quantizations begin with it."""
    run: Callable[[Path, Path], bool] | None = None
    """Takes source and destination; `False` where there was nothing to do and nothing was written: what it begins with is then the
    result, and must be of the kind that `output` says. A model's key knows of its code the name of the step alone, which
    therefore has a version: `untie-output-1`."""


@dataclass(frozen=True)
class Asked:
    """The options of a cell, and what they have to fit."""

    options: Any
    """Of the framework, with one value each."""
    axes: Collection[str]
    """The options that other cells have otherwise."""
    variant: Variant
    batch: int
    """Most tokens of a step of its workload."""
    target: TargetOptions


@dataclass(frozen=True)
class OptionProblem:
    """Something wrong with a framework's options that no single value shows."""

    path: tuple[str | int, ...]
    """Within the options."""
    message: str
    suggestion: str | None = None
    value: str | None = None
    """A name that nobody knows, for which the nearest of `known` is suggested."""
    known: Collection[str] = ()


DATA, LOGITS = "data", "logits"
"""Names of a scorer's inputs: the questions or the text; what the unquantized model expects of the text."""


class Scorer(Protocol):
    """A program of a framework's run bundles that scores models."""

    @property
    def program(self) -> str:
        """Its path in a bundle."""
        ...

    def takes(self, options: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
        """What its request has of the framework's own part of a request; `None` for nothing."""
        ...

    def refusal(self, task: str) -> str | None:
        """Why it cannot work on a task, as the end of a sentence; `None` where it can."""
        ...

    def mode(self, task: str) -> Mode:
        """The way in which it works on a task."""
        ...

    def holds(self, mode: Mode, question: Question) -> bool:
        """Whether the format of its files can hold a question; others are left out."""
        ...

    def sheet(self, mode: Mode, questions: Sequence[Question], release: str) -> Sheet:
        """The questions as the file that it reads; raises `DataError` for what is no question of this mode."""
        ...

    def inputs(self, mode: Mode) -> Collection[str]:
        """Names of the files that it reads besides the model: `DATA`, `LOGITS` or both."""
        ...

    def arguments(self, request: ScoringRequest, release: str) -> tuple[Argument, ...]:
        """What follows the program's name."""
        ...

    def read(self, request: ScoringRequest, stdout: str, stderr: str) -> tuple[Score, ...]:
        """The scores in what it printed; raises `RecordError` where that is not whole or does not add up."""
        ...

    def logits_command(self, workload: TextWorkload, release: str) -> tuple[str, ...]:
        """Command of a run bundle that writes what `/model` expects of the text `/text` to `/out/logits`."""
        ...

    def check_logits(self, workload: TextWorkload, path: Path, printed: str) -> None:
        """Raise `BuildError` where a file is not all of what `logits_command` makes; `printed` is what it said."""
        ...


class Weights(Protocol):
    """What writes models of known shapes with made-up weights (docs/models.md), in the format of a framework's sources."""

    @property
    def format(self) -> str:
        """A name for the format, which becomes part of the names of sources; that of llama.cpp has none."""
        ...

    def size(self, shape: ModelShape) -> int:
        """Of the file, in bytes."""
        ...

    def pieces(self, shape: ModelShape, seed: int, bring: Bring) -> Iterator[ReadableBuffer]:
        """The file piece by piece, the same everywhere; a piece is valid until the next one is asked for.

        `bring` fetches what is read for it, such as a real tokenizer; raises `SourceError` and its kin.
        """
        ...


class Framework(Protocol):
    """A framework; who inherits from it need not write what most do alike.

    `options` are always an instance of its own model.
    """

    kind: str
    options: type[BaseModel]
    """Validates `frameworks.NAME.options`; frozen, unknown keys forbidden."""
    files: Collection[tuple[str, ...]] = ()
    """Keys of the options whose values may be paths, which count from the file that names them."""
    scorer: Scorer | None = None
    weights: Weights | None = None

    def releases(self) -> Mapping[str, Release]:
        """By name, the preferred one last."""
        ...

    def version(self, name: str) -> Release | None:
        """A release of this name that is not pinned here but by a lock; `None` where there is no such thing."""
        return None

    def ordered_as(self, release: str) -> str:
        """A name with numbers by which a release stands among the others of this framework, old and new."""
        return release

    def quantizations(self) -> Mapping[str, float]:
        """Name -> bits per weight, to estimate sizes before anything is built; with `as-is`."""
        ...

    # -- what is built --------------------------------------------------------------------------------------------

    def levels(self) -> Collection[str]:
        """Every CPU level that `targets.NAME.isa` may name."""
        ...

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterable[OptionProblem]:
        """What is wrong with options beside a release (`None` for a source of one's own) and these kinds of targets.

        Options of a run have one value each. What is wrong with some values of an axis alone leaves out their cells.
        """
        return ()

    def option_refusal(self, asked: Asked, device: DeviceFacts) -> str | None:
        """Why a cell cannot have its options on a device; `None` where it can."""
        return None

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        """What this device runs: of that CPU level, or the best that it can."""
        ...

    def reference(self, release: Release) -> tuple[Framework, Release]:
        """Whose scorer writes down what an unquantized model expects of a text; another's where its own differs from CPU to CPU."""
        return self, release

    def extra_variants(self, options: Any, release: Release) -> Sequence[Variant]:
        """What the options want built besides what the targets need."""
        return ()

    def tool_variant(self, purpose: Purpose) -> Variant:
        """What this machine runs while it makes models; fixed, so that their bytes do not depend on who makes them."""
        raise LookupError(f"{self.kind} has no step of purpose {purpose}")

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        """The recipe of a bundle, with all of its inputs."""
        ...

    # -- models ---------------------------------------------------------------------------------------------------

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        """How a model is made from its source; no step at all where the source is the model."""
        ...

    def model_bytes(self, shape: ModelShape, quantization: str, release: Release) -> int | None:
        """Exact size of a model with made-up weights, where the framework knows it."""
        return None

    def parameter_count(self, path: Path) -> int | None:
        """How many weights a model holds, where the framework can tell."""
        return None

    def check_model(self, path: Path) -> None:
        """Raise `ModelError` where a source that is one file, or what a step made of it, is no model."""
        ...

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        """Raise `ModelError` where the files of a checkpoint, by name, are damaged or of a kind that is not converted."""
        raise ModelError(f"framework {self.kind} makes no models of checkpoints")

    def adapter_refusal(self, release: Release) -> str | None:
        """Why a release adds no LoRA adapter to a model, as the end of a sentence; `None` where it does."""
        return f"{self.kind} adds none to its models"

    def check_adapter(self, adapter: Path, model: Path | None) -> None:
        """Raise `ModelError` where a file is no adapter, or none for a model's file, if that is here."""
        raise ModelError(f"framework {self.kind} adds no adapter to its models")

    def name_refusal(self, name: str) -> str | None:
        """Why a file that is not here is no model by its name, such as a part of one; `None` where it may be."""
        return None

    def look(
        self, options: Any, model: Path | Mapping[str, Path], release: Release, template: ChatTemplate | None = None
    ) -> Look:
        """What a release makes of a model's file, or of the files of a checkpoint by name, of which some may not be here.

        Without a template nothing is said of whether it fits. Reads no more than headers and lists of tokens. Raises
        `ModelError` where the files are damaged or no model.
        """
        return Look()

    def describe(self, model: Path, release: str) -> str | None:
        """What a model file is, and what of it a release knows, in a line for whoever asks why it cannot be loaded."""
        return None

    # -- what others keep of it -----------------------------------------------------------------------------------

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        """The framework's own part of `request.json`."""
        return {}

    context_uses: Set[ContextUse] = frozenset()
    """What its engine can do with a context besides filling it."""

    def cache_bits(self, options: Any) -> float:
        """Bits of a number in the cache of keys and values, the mean of both: plans estimate memory by it."""
        return 16.0

    def pinned(self, options: Any) -> Mapping[str, JsonValue]:
        """What of the options decides which bytes are used; a lock follows from it."""
        return cast("BaseModel", options).model_dump(mode="json")

    def withholds(self, options: Any, source: str) -> bool:
        """Whether a replay bundle may not hold a source, by its name in a lock: one of today's recipes, or of older ones."""
        return False

    def withheld_variants(self) -> Collection[str]:
        """Names of the variants whose bundles may not be passed on either."""
        return ()

    def servers(self, options: Any) -> Mapping[tuple[str, ...], str]:
        """The machines that the user's login is for, by the keys of the options that name them."""
        return {}


def framework(kind: str) -> Framework:
    """The framework of a kind; raises `UsageError` where it is not installed or broken."""
    found: Framework = FRAMEWORKS.get(kind)
    if found.kind != kind:
        raise UsageError(
            f"framework {kind!r} calls itself {found.kind!r}", hint="its package is to register it by its own name"
        )
    return found


def scorer_of(kind: str) -> Scorer:
    """What scores the models of a kind of framework; raises `RecordError` where nothing here does."""
    scorer = framework(kind).scorer if FRAMEWORKS.has(kind) else None
    if scorer is None:
        raise RecordError(
            f"nothing here scores models of framework {kind!r}", hint="install the package that brings it"
        )
    return scorer
