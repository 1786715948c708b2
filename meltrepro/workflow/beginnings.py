"""Manifests to begin with: the quickstart, one made of a model's name, and a model added to somebody's own."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import ValidationError

from meltrepro import resources
from meltrepro import settings as settings_module
from meltrepro.atomic import remove, write_bytes
from meltrepro.chat.contexts import needs
from meltrepro.chat.template import BUILT_IN
from meltrepro.errors import ManifestError, MeltreproError, ModelError, SourceError, UsageError
from meltrepro.frameworks.base import AS_IS, Release, framework
from meltrepro.manifest import addresses
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.lock import LockedName
from meltrepro.manifest.schema import Model, Workload
from meltrepro.manifest.shapes import SHAPES
from meltrepro.manifest.sources import WRITTEN, FileSource, FolderSource, HuggingFaceSource, as_whole, files_of
from meltrepro.manifest.yaml.insert import with_entry
from meltrepro.manifest.yaml.suggest import suggest
from meltrepro.registry import FRAMEWORKS
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.store import checkpoint
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets import registry
from meltrepro.targets.base import Attached
from meltrepro.workflow.devices import attached
from meltrepro.workflow.manifests import Validated, folder_of, validate
from meltrepro.workflow.models import Files, on_disk

Compared = Literal["quantizations", "frameworks", "devices"]
HOST, USABLE = "host", "device"
"""This machine, as targets and their kind are called, and the state of a device that can be measured on."""
_PLAIN = "plain"
"""The chat template of models that bring none: prompts as they are."""
_SYNTHETIC = "synthetic:"
_TURNS, _CONTEXT, _ANSWER = 2, 1024, 48
"""Turns of a conversation, its context and its longest answer, as far as a model was trained for as much."""
_USUAL = ("q8_0", "q4_0")
"""Quantizations that every framework here makes."""
_UNQUANTIZED = re.compile(r"(?<![a-z0-9])(bf16|f16|fp16|f32|fp32)(?![a-z0-9])", re.IGNORECASE)
_LETTERS = re.compile(r"[^a-z0-9]")
_NO_MODELS = ("", ".json", ".md", ".txt", ".yaml", ".yml")
"""Endings of what is no model, whatever its name."""


@dataclass(frozen=True)
class ModelEntry:
    """A model as a manifest has it."""

    name: str
    """That it gets where the user gives it none."""
    source: str | Mapping[str, Any]
    quantized: bool
    """Whether it is one file with quantized weights."""
    found: LockedName | None = None
    """Of one on the hub: the newest commit, and its licence."""

    def quantizations(self, compared: Compared | None) -> list[str]:
        """Those to measure where these are to be compared."""
        if compared == "frameworks" or (compared == "devices" and not self.quantized):
            return [_USUAL[-1]]
        if not self.quantized:
            return list(_USUAL)
        return [AS_IS, _USUAL[-1]] if compared == "quantizations" else [AS_IS]

    template: str | None = None
    """Name of the chat template of a model that brings none; `None` where its own is taken."""

    def keys(self, compare: Compared | None = None) -> dict[str, Any]:
        """What stands below its name."""
        licence = self.found.licence if self.found is not None else None
        return {
            "source": self.source,
            "quantizations": self.quantizations(compare),
            **({"chat_template": self.template} if self.template else {}),
            **({"licence": licence} if licence else {}),
        }


def is_model(path: Path) -> bool:
    """Whether a path is that of a model, where a manifest is asked for: the folder of a checkpoint, or a file that is no text.

    Raises `UsageError` for the name of one, which no manifest can stand beside.
    """
    if str(path).startswith((addresses.HUB, _SYNTHETIC)):
        raise UsageError(
            f"{path} is a model's name, no file", hint=f"make a manifest of it: meltrepro init --model {path}"
        )
    if path.is_dir():
        return (path / checkpoint.CONFIG).is_file()
    return path.suffix.lower() not in _NO_MODELS and path.is_file()


def beside(model: Path) -> Path:
    """The manifest of a model's file or folder, beside it; made where there is none.

    Raises `UsageError` where it cannot be written or is of another model, and what `begin` raises.
    """
    whole = _named(model)
    path = model.parent / f"{whole}.yaml"
    if path.is_file():
        if not _is_of(path, model):
            raise UsageError(
                f"{path} is there already, and of another model than {model.name}",
                hint=f"run a manifest of its own, made by: meltrepro init FOLDER --model {model}",
            )
        return path
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"{path.parent}: the manifest of {model.name} belongs beside it, and nothing can be written there",
            hint=f"keep it elsewhere: meltrepro init FOLDER --model {model}",
        )
    return begin(path.parent, model=str(model), compare=None)[0]


def _is_of(manifest: Path, model: Path) -> bool:
    """Whether a manifest has a model of this file or folder; also where it cannot be read, which whoever runs it is told."""
    try:
        loaded = load_manifest(manifest).manifest
    except ManifestError:
        return True
    named: list[str] = []
    for each in loaded.models.values():
        if isinstance(each.source, FileSource):
            named += files_of(each.source)
        elif isinstance(each.source, FolderSource):
            named.append(each.source.folder)
    return model.resolve() in {(manifest.parent / name).expanduser().resolve() for name in named}


def begin(
    folder: Path | str,
    *,
    model: str | None = None,
    device: str | None = None,
    compare: Compared | None = "quantizations",
    sink: Sink = silent,
    settings: Settings | None = None,
) -> tuple[Path, Validated]:
    """Write a manifest of a model into a folder, as `NAME.yaml`, and look at it.

    `model` is hf:OWNER/NAME, hf:OWNER/NAME/FILE, a file, the folder of a checkpoint, synthetic:NAME, or else the quickstart's;
    `device` is named as `meltrepro devices` shows it, this machine where absent. Raises `UsageError`, `SourceError` and its
    kin, and `ManifestError` or `ModelError` where nothing can come of the model; nothing is written then.
    """
    settings = settings or settings_module.load()
    if compare is not None and compare not in get_args(Compared):
        raise UsageError(f"{compare!r} cannot be compared", hint=suggest(compare, get_args(Compared)))
    base = folder_of(folder).absolute()
    entry = entry_of(model, base, settings, sink) if model else _quickstart()
    path = Path(folder) / f"{entry.name}.yaml"
    targets = _targets(device, compare, settings)
    kinds = FRAMEWORKS.kinds() if compare == "frameworks" else FRAMEWORKS.kinds()[:1]
    newest = {kind: max(FRAMEWORKS.get(kind).releases().values(), key=lambda each: each.date) for kind in kinds}
    trained, unknown = _trained(entry, base, newest, settings, sink)
    chat = _chat(trained)
    entries = (entry, replace(entry, template=_PLAIN))
    texts = [_text(each, newest, targets, chat, compare).encode() for each in entries]
    was = path.read_bytes() if path.is_file() else None
    if path.exists() and was not in texts:
        raise UsageError(f"{path} is there already", hint="name another folder: meltrepro init FOLDER")
    made = [each for each in (base, *base.parents) if not each.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        for text in texts:
            write_bytes(path, text)
            found = validate([path], settings=settings)
            if not _lacks_template(found):
                break
        if found.error is not None:
            raise _of_model(found.error, model or entry.name)
    except BaseException:
        remove(path) if was is None else write_bytes(path, was)
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()
        raise
    return path, replace(found, warnings=[*found.warnings, *unknown])


def _of_model(error: ManifestError | ModelError, model: str) -> MeltreproError:
    """What is wrong with a manifest that nobody keeps, as what is wrong with its model."""
    said = "; ".join(each.message for each in error.problems)
    hints = (each.suggestion for each in error.problems)
    return ModelError(
        said if Path(model).name in said else f"{model}: {said}", hint=error.hint or next(filter(None, hints), None)
    )


def _lacks_template(found: Validated) -> bool:
    """Whether all that is wrong is that a model brings no chat template, as models do that no conversation was trained into."""
    error = found.error
    return isinstance(error, ModelError) and all(each.field.endswith(".chat_template") for each in error.problems)


@dataclass(frozen=True)
class Added:
    """A model that was written into a manifest."""

    path: Path
    entry: ModelEntry
    keys: Mapping[str, Any]
    """What stands below its name."""

    @property
    def lines(self) -> list[str]:
        """The same as it is written."""
        return _lines(self.keys)


def add_model(
    spec: Path | str,
    name: str,
    source: str,
    *,
    quantizations: Sequence[str] = (),
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Added:
    """Write a model into a manifest, whose other lines stay as they are; one on the hub is looked up first.

    Raises `UsageError` for a name that is taken and a file that is laid out otherwise, `SourceError` and its kin, and
    `ManifestError` or `ModelError` where the manifest would not be well then; it stays as it was.
    """
    path = Path(spec)
    settings = settings or settings_module.load()
    entry = entry_of(source, path.absolute().parent, settings, sink)
    try:
        before = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint="name a manifest") from error
    for each in (entry, replace(entry, template=_PLAIN)):
        added = Added(path, each, each.keys() | ({"quantizations": list(quantizations)} if quantizations else {}))
        write_bytes(path, with_entry(before, str(path), "models", name, added.lines))
        found = validate([path], settings=settings)
        if not _lacks_template(found):
            break
    if found.error is not None:
        write_bytes(path, before)
        raise found.error
    return added


def entry_of(text: str, base: Path, settings: Settings, sink: Sink = silent) -> ModelEntry:
    """The model that a text names, for a manifest in a folder.

    Raises `UsageError` for what names none, `SourceError` and its kin where the hub has none of that name.
    """
    if text.startswith(_SYNTHETIC):
        shape = text.removeprefix(_SYNTHETIC)
        if shape not in SHAPES:
            raise UsageError(f"there is no shape {shape!r}", hint=_made_up(shape) or suggest(shape, SHAPES))
        return ModelEntry(_name(shape), {"synthetic": shape}, quantized=False)
    if text.startswith(addresses.HUB):
        return _of_hub(text, settings, sink)
    path = Path(text).expanduser()
    if path.is_dir():
        checkpoint.in_folder(FolderSource(folder=text), path)  # what is none is told now
        return ModelEntry(_name(path.resolve().name), {"folder": _relative(path, base)}, quantized=False)
    if not path.is_file():
        hint = (addresses.as_source(text) or _made_up(text)) if not path.is_absolute() else None
        known = f"{addresses.HUB}OWNER/NAME, a file, a folder, {_SYNTHETIC}NAME"
        raise UsageError(
            f"there is no model {text!r}: no such file or folder",
            hint=hint if hint and "{" not in hint else f"name {known}",
        )
    return ModelEntry(_named(path), {"file": _relative(path, base)}, quantized=_UNQUANTIZED.search(path.stem) is None)


def _made_up(text: str) -> str | None:
    """Shapes that a name may have been meant for: those that it is a part of, else one that is like it."""
    wanted = _LETTERS.sub("", text.lower())
    found = [str(shape) for shape in SHAPES if len(wanted) > 2 and wanted in _LETTERS.sub("", shape)]
    found = found or difflib.get_close_matches(text.lower(), SHAPES, n=1)
    names = ", ".join(f"{_SYNTHETIC}{shape}" for shape in found)
    return f"of made-up weights there is {names}; real ones are named {addresses.HUB}OWNER/NAME" if found else None


def measurable(settings: Settings | None = None) -> list[Attached]:
    """What can be measured on now, this machine first."""
    rows = [row for row in attached(settings=settings)[0] if row.state == USABLE and not row.todo]
    return sorted(rows, key=lambda row: row.kind != HOST)


def _of_hub(text: str, settings: Settings, sink: Sink) -> ModelEntry:
    try:
        source = HuggingFaceSource.model_validate(addresses.hub_name(text), context={WRITTEN: True})
    except ValidationError as error:
        raise UsageError(f"{text}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise UsageError(f"{text}: {error}") from error
    whole = as_whole(source)
    assert isinstance(whole, HuggingFaceSource)
    found = Fetcher(Store(settings.store), settings, sink).newest(whole)
    file = whole.file
    name = _named(Path(files_of(whole)[0])) if file else _name(source.huggingface.rpartition("/")[2])
    return ModelEntry(name, text, quantized=file is not None and _UNQUANTIZED.search(file) is None, found=found)


def _quickstart() -> ModelEntry:
    (name, model), *_ = yaml.safe_load(next(iter(resources.quickstart().values())))["models"].items()
    found = LockedName(revision="0" * 40, licence=model["licence"])
    return ModelEntry(name, model["source"], quantized=False, found=found)


def _targets(device: str | None, compare: Compared | None, settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Those of a manifest, by name."""
    if compare == "devices":
        rows = measurable(settings)
        if device is not None:
            raise UsageError("--compare devices takes every device that is there", hint="leave --device out")
        if len(rows) < 2:
            raise UsageError(
                "there is only this machine to measure on, and nothing to compare it with",
                hint="attach a device; what is there, and what to do about it: meltrepro devices",
            )
        return {_name(row.serial or HOST): _target(row.serial, settings) for row in rows}
    if device not in (None, "", HOST):
        registry.require_known(device, (row.serial for row in attached(settings=settings)[0]), settings)
    return {_name(device or HOST): _target(device or "", settings)}


def _target(serial: str, settings: Settings) -> Mapping[str, Any]:
    if serial in ("", HOST):
        return {"kind": HOST}
    options = registry.named(serial, None, settings)
    return {"kind": options.kind, **options.model_dump(mode="json", exclude_unset=True, exclude_none=True)}


def _trained(
    entry: ModelEntry, base: Path, releases: Mapping[str, Release], settings: Settings, sink: Sink
) -> tuple[int | None, Sequence[str]]:
    """Longest context that a model was trained for, as its shape, its files or its configuration on the hub say; or that none does."""
    model = Model.model_validate({"source": entry.source, "quantizations": [AS_IS]}, context={WRITTEN: True})
    found, why = [model.trained_context], "only the whole file says it"
    files: Files | None = None
    try:
        if not isinstance(model.source, HuggingFaceSource):
            files = on_disk(base)(model.source)
        elif model.source.file is None and entry.found is not None:
            part = {"file": checkpoint.CONFIG, "revision": entry.found.revision}
            fetcher = Fetcher(Store(settings.store), settings, sink)
            files, why = (
                {checkpoint.CONFIG: fetcher.get(model.source.model_copy(update=part))},
                "its configuration is silent",
            )
    except SourceError as error:  # of a model here it is said of the manifest
        why = error.message
    for kind, release in releases.items():
        engine = framework(kind)
        if files is None:
            break
        with contextlib.suppress(ModelError, SourceError, OSError, ValidationError):  # said of the manifest
            found.append(engine.look(engine.options(), files, release).context)
    trained = min(filter(None, found), default=None)
    if trained is not None or not isinstance(model.source, HuggingFaceSource):
        return trained, ()
    return None, [
        f"for how long a context {entry.source} was trained is not known here ({why}): see that it is not less than `context`"
    ]


def _chat(trained: int | None) -> Workload:
    """Conversations that fit what a model was trained for."""
    prompts = yaml.safe_load(resources.quickstart()["prompts/everyday.yaml"])["conversations"][:2]
    context = min(_CONTEXT, trained or _CONTEXT)
    for turns in range(_TURNS, 0, -1):
        chat = Workload(conversations=[each["turns"][:turns] for each in prompts], context=max(context, 16))
        assert isinstance(chat.conversations, list)
        taken = max(need.prompts for need in needs(chat, chat.conversations, BUILT_IN[_PLAIN]))
        if (room := (chat.context - taken) // turns) >= _ANSWER:
            break
    return chat.model_copy(update={"max_tokens": max(1, min(_ANSWER, room))})


def _text(
    entry: ModelEntry,
    releases: Mapping[str, Release],
    targets: Mapping[str, Mapping[str, Any]],
    chat: Workload,
    compare: Compared | None,
) -> str:
    what = f", {compare} compared" if compare else ""
    return "\n".join(
        [
            "# Made by meltrepro for you to change: docs/manifest.md says what else can stand here.",
            "meltrepro: 1",
            f"name: {entry.name}",
            f"description: {entry.name} on {', '.join(targets)}{what}",
            "",
            "models:",
            f"  {entry.name}:",
            *(f"    {line}" for line in _lines(entry.keys(compare))),
            "",
            "frameworks:",
            *(f"  {kind}: {_flow({'release': release.name})}" for kind, release in releases.items()),
            "",
            "targets:",
            *(f"  {name}: {_flow(dict(options))}" for name, options in targets.items()),
            "",
            "workloads:",
            "  chat:",
            "    conversations:",
            *(
                f"      {'- ' if number == 0 else '  '}- {_flow(turn)}"
                for turns in chat.conversations
                for number, turn in enumerate(turns)
            ),
            f"    context: {chat.context}",
            f"    max_tokens: {chat.max_tokens}",
            "    sampling: {greedy: true}",
            "",
            "protocol: {profile: smoke, repetitions: 5, warmups: 1, order: interleaved, seed: 1}",
            "measure: {memory: required, energy: if-available, temperature: if-available}",
            "",
        ]
    )


def _lines(keys: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {_flow(value)}" for key, value in keys.items()]


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _named(path: Path) -> str:
    """The name of a model by its file, of a split one by what its files have in common."""
    whole = as_whole(FileSource(file=path.name))
    assert isinstance(whole, FileSource)
    split = whole.file.partition("-*-of-")
    return _name(split[0] if split[1] else path.stem if path.is_file() or path.suffix else path.name)


def _name(text: str) -> str:
    """A text as the name of an entry."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64].lower() or "model"


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path.absolute(), base)
