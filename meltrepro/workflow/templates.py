"""The chat templates of a plan's models: those that models bring are read from their files, which are fetched for it."""

from __future__ import annotations

from meltrepro.chat.choice import chosen, is_built_in
from meltrepro.chat.own import OwnTemplates, says
from meltrepro.chat.template import ChatTemplate, TemplateError
from meltrepro.errors import ManifestError, Problem
from meltrepro.frameworks.base import framework
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.loader import problem_at
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.sources import FolderSource, Source, is_checkpoint
from meltrepro.workflow.models import OTHER_TEMPLATES, Files, at_hand
from meltrepro.workflow.session import Session


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
    """What a model's files say of its templates."""
    releases = {bundle.framework_name: bundle.release for bundle in session.plan.bundles}
    for node in session.plan.models:
        if node.model_name == model:
            release = releases[node.framework_name]
            look = framework(node.kind).look(session.plan.options(node), _files(session, node.source), release)
            if look.chat is not None:
                return look.chat
    return OwnTemplates()


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
