"""Whether what a manifest asks fits its contexts, as far as the texts are on this machine; before any model is here."""

from __future__ import annotations

from collections.abc import Collection

from meltrepro import untrusted
from meltrepro.accuracy.answers import ask
from meltrepro.chat.contexts import check_contexts, check_texts
from meltrepro.errors import DataError, Problem, SourceError
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.sources import FileSource
from meltrepro.store.names import local_path

_MOST = 64 << 20
"""Bytes of a file of questions that is looked into; a larger one is looked into when it is asked."""


def check_fits(loaded: LoadedManifest, wanted: Collection[str]) -> tuple[list[Problem], list[Problem]]:
    """What of the wanted workloads cannot fit its context, and what may not."""
    problems, warnings = check_contexts(loaded, wanted)
    for name, workload in loaded.manifest.workloads.items():
        if name not in wanted or not isinstance(workload, AnswerWorkload) or not isinstance(workload.data, FileSource):
            continue
        file = workload.data.file
        try:
            content = untrusted.read_regular(local_path(loaded.path.parent, file), _MOST)
        except (OSError, SourceError):  # said where files are looked for
            continue
        try:
            prompts, _ = ask(workload, content, "0" * 64, file)
        except DataError:  # said where they are asked, with an exit code of its own
            continue
        check_texts(loaded, name, workload, [[prompt] for prompt in prompts], problems, warnings)
    return problems, warnings
