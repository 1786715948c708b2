"""`tracking.json` in a campaign folder: what was logged where.

The ledger saves work, it does not decide: whatever is logged twice overwrites itself. So it is written now and then
only, and a ledger that is lost or damaged costs nothing but time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from meltrepro import untrusted
from meltrepro.atomic import write_bytes
from meltrepro.manifest.base import Address
from meltrepro.plan.identity import digest_of
from meltrepro.store.names import redact
from meltrepro.track.places import Place, local_database, noted
from meltrepro.untrusted import parse

LEDGER = "tracking.json"
_EVERY_S = 2.0
"""How much work a kill may cost."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunNote(_Strict):
    """One MLflow run and the pieces that were logged to it, with the digest of each piece."""

    run_id: str
    pieces: dict[str, str] = {}


class PlaceNote(_Strict):
    uri: Annotated[Address, AfterValidator(redact)]
    """As it may be shown, also where an earlier version wrote more; of a database of the same home, the way there."""
    experiment_id: str
    campaign: RunNote
    cells: dict[str, RunNote] = {}
    complete: bool = False
    """Whether a finished campaign was logged to its end."""


class _Document(_Strict):
    format: int = 1
    places: list[PlaceNote] = []


@dataclass
class Ledger:
    path: Path
    document: _Document
    _saved_at: float = field(default_factory=time.monotonic)
    _dirty: bool = False

    def place(self, place: Place) -> PlaceNote | None:
        """What was logged to a place; nothing where that is a database without the run, as where one of both was moved alone."""
        names = (noted(place, self.path.parent), place.shown)  # the second is an earlier version's
        note = next((note for name in names for note in self.document.places if note.uri == name), None)
        database = local_database(place.uri)
        return note if note is None or database is None or database.holds(note.campaign.run_id) else None

    def begin(self, place: Place, experiment_id: str, run_id: str) -> PlaceNote:
        """The note of a place; an earlier one of other runs is forgotten."""
        note = self.place(place)
        if note is not None and (note.experiment_id, note.campaign.run_id) == (experiment_id, run_id):
            return note
        uri = noted(place, self.path.parent)
        fresh = PlaceNote(uri=uri, experiment_id=experiment_id, campaign=RunNote(run_id=run_id))
        self.document.places = [other for other in self.document.places if other is not note] + [fresh]
        self.touch()
        return fresh

    @contextmanager
    def piece(self, run: RunNote, name: str, content: Mapping[str, Any] | list[Any]) -> Iterator[bool]:
        """Whether a piece with this content is still to be logged; noted when the block ends well."""
        digest = digest_of(content)[:16]
        missing = run.pieces.get(name) != digest
        yield missing
        if missing:
            run.pieces[name] = digest
            self.touch()

    def touch(self) -> None:
        """Note a change; it reaches the disk within a short time, or with `save`."""
        self._dirty = True
        if time.monotonic() - self._saved_at > _EVERY_S:
            self.save()

    def save(self) -> None:
        """Bring the ledger to the disk; raises `StoreError`."""
        if self._dirty:
            write_bytes(self.path, self.document.model_dump_json(indent=1).encode() + b"\n")
            self._saved_at, self._dirty = time.monotonic(), False


def open_ledger(folder: Path) -> Ledger:
    """The ledger of a campaign folder; an empty one where there is none that can be read."""
    path = folder / LEDGER
    try:
        document = parse(_Document, untrusted.read(path))
    except (OSError, ValueError):
        document = _Document()
    return Ledger(path, document)
