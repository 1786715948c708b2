"""`study.json`: the campaigns that belong to one report, and the manifests that could not be run, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro import untrusted
from meltrepro.errors import RecordError
from meltrepro.manifest.base import Name, Sha256, Strict
from meltrepro.record import seal
from meltrepro.untrusted import parse

STUDY = "study.json"


class StudyEntry(Strict):
    """One manifest of a study."""

    manifest: str
    """Its file's name."""
    campaign: str | None
    """Id of its campaign; `None` where it could not be run."""
    reason: str | None = None
    """Why it could not."""


class StudyDocument(Strict):
    """The whole file."""

    format: Literal[1] = 1
    name: Name
    entries: list[StudyEntry]
    seal: Sha256 | None = Field(None, description="sha256 of everything else in this file, canonical JSON.")

    @property
    def campaigns(self) -> list[str]:
        """Ids of the campaigns that were run, in the order of the manifests."""
        return [entry.campaign for entry in self.entries if entry.campaign is not None]


def find_study(studies: Path, wanted: str) -> StudyDocument | None:
    """The study that a user means by its name, its folder or its file; `None` where it is none. Raises `RecordError`."""
    places = (Path(wanted), Path(wanted) / STUDY, *((studies / wanted / STUDY,) if "/" not in wanted else ()))
    return next((read_study(path) for path in places if path.name == STUDY and path.is_file()), None)


def campaigns_meant(studies: Path, named: Sequence[str]) -> list[str]:
    """What a user names, with each study replaced by its campaigns; raises `RecordError`."""
    found = {name: find_study(studies, name) for name in named}
    return [campaign for name, study in found.items() for campaign in (study.campaigns if study else [name])]


def study_bytes(study: StudyDocument) -> bytes:
    """The content of `study.json`, sealed."""
    return seal.sealed(study.model_dump(mode="json", exclude={"seal"}))


def read_study(path: Path) -> StudyDocument:
    """The study in a file; raises `RecordError` where it is damaged or was changed."""
    try:
        content = untrusted.read(path)
        document = parse(StudyDocument, content)
        seal.check(content, document.seal)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}", hint="repeat it with: meltrepro study") from error
    return document
