"""The templates that the pinned source of llama.cpp carries, and the table of them in docs/chat-templates.md.

`python -m tests.support.known_templates` writes the table anew.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping

from meltrepro import settings
from meltrepro.chat.render import render
from meltrepro.chat.template import ChatTemplate, TemplateError
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.support import pages

PLACE = ("chat-templates.md", "templates")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
_PLACE = re.compile(r"/models/templates/(.+)\.jinja$")


def known_templates() -> Mapping[str, str]:
    """The text of each by its name, out of the release that has them."""
    here = settings.load()
    source = next(iter(RELEASES["2026-10-01"].sources.values()))
    archive = Fetcher(Store(here.cache / "store"), here, silent).get(source)
    found: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if (name := _PLACE.search(member.name)) is not None and (file := tar.extractfile(member)) is not None:
                found[name[1]] = file.read().decode()
    return dict(sorted(found.items(), key=lambda each: each[0].casefold()))


def table(templates: Mapping[str, str]) -> str:
    """A row for each: how it ends answers, marks thinking, and what is said of it."""
    rows = ["| template | ends an answer | thinking | said of it |", "| --- | --- | --- | --- |"]
    for name, text in templates.items():
        try:
            found = render(ChatTemplate(name, text, TOKENS, "<s>", trusted=True), "Be kind.", [["Hi", "Why?"]])
        except TemplateError as error:
            rows.append(f"| {name} | | | {str(error).rpartition(': ')[2]}: variables are needed |")
            continue
        end, thinking = (" ".join(f"`{_safe(mark)}`" for mark in marks or ()) for marks in (found.ends, found.thinking))
        rows.append(f"| {name} | {end} | {thinking} | {'; '.join(map(_short, found.notes))} |")
    return "\n".join(rows) + "\n"


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


def _short(note: str) -> str:
    """A note as the page's list numbers it."""
    for number, begin in enumerate(("it writes earlier", "it leaves the thinking", "it has no place"), 1):
        if note.startswith(begin):
            return str(number)
    return note


if __name__ == "__main__":
    pages.write(*PLACE, table(known_templates()))
