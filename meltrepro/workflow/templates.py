"""The chat templates of a plan's models: those that models bring are read from their files, which are fetched for it."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from meltrepro.chat.choice import chosen, is_built_in
from meltrepro.chat.own import OwnTemplates, says
from meltrepro.chat.template import ChatTemplate, TemplateError
from meltrepro.errors import CorruptStore, ManifestError, Problem
from meltrepro.frameworks.base import framework
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.loader import problem_at
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.sources import FileSource, FolderSource, Source, is_checkpoint
from meltrepro.store.cas import Store
from meltrepro.workflow.models import OTHER_TEMPLATES, Files, at_hand
from meltrepro.workflow.session import Session

_KEPT = "chat-templates-1"
"""Refs by the digest of a model's source, with what was read from it; a number of its own for each way of reading."""


def templates_of(session: Session) -> dict[str, ChatTemplate]:
    """The templates of the models that are talked to, by name; raises `ManifestError`, and what fetching raises."""
    loaded, found, problems = session.loaded, dict[str, ChatTemplate](), list[Problem]()
    talked = (c.model_name for c in session.plan.cells if isinstance(c.workload, Workload | AnswerWorkload))
    for name in dict.fromkeys(talked):
        model = loaded.manifest.models[name]
        try:
            own = OwnTemplates() if is_built_in(model) else _own(session, name)
            found[name] = chosen(name, model, loaded.path.parent, own)
        except TemplateError as error:
            problems.append(problem_at(loaded, ("models", name, "chat_template"), str(error), OTHER_TEMPLATES))
    if problems:
        raise ManifestError(problems)
    return found


def _own(session: Session, model: str) -> OwnTemplates:
    """What a model's files say of its templates; of a model that was fetched it is kept, so that it need not be here again."""
    pins, store = session.tools.pins, session.tools.store
    releases = {bundle.framework_name: bundle.release for bundle in session.plan.bundles}
    for node in session.plan.models:
        if node.model_name != model or node.is_adapter:
            continue
        fetched = not isinstance(node.source, FileSource | FolderSource)
        digest = pins.known(node.source) if fetched else None
        if digest is not None and (kept := _kept(store, digest)) is not None:
            return kept
        release = releases[node.framework_name]
        look = framework(node.kind).look(session.plan.options(node), _files(session, node.source), release)
        if look.chat is not None:
            if fetched and (digest := pins.known(node.source)) is not None:
                store.put_ref(_KEPT, digest, {"model": digest, "chat": asdict(look.chat)})
            return look.chat
    return OwnTemplates()


def _kept(store: Store, digest: str) -> OwnTemplates | None:
    """What was read from a source earlier; `None` where nothing was, or what is kept of it is damaged."""
    try:
        return TypeAdapter(OwnTemplates).validate_python((store.get_ref(_KEPT, digest) or {}).get("chat"))
    except (CorruptStore, ValidationError):
        return None


def _files(session: Session, source: Source) -> Files:
    """The file of a model, or those of a checkpoint that say something of templates: here, or brought here."""
    pins, fetcher = session.tools.pins, session.tools.fetcher
    if not is_checkpoint(source) or isinstance(source, FolderSource):
        if (found := at_hand(pins)(source)) is not None:
            return found
        brought = fetcher.get(pins.pinned(source), pins.base_dir)
        return at_hand(pins)(source) or brought  # of a split model the files, of which a listing was brought
    pins.pin_model(source)
    for name, part in fetcher.parts(pins.pinned(source)).items():
        if says(name):
            fetcher.get(part, pins.base_dir)
    files = at_hand(pins)(source)
    assert files is not None  # it was pinned, so that its configuration is here
    return files
