"""Public records: an entry of a campaign, looked through, signed and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.atomic import remove, write_bytes
from meltrepro.errors import EntryError
from meltrepro.measure.records import read_campaign
from meltrepro.plan.names import Selection
from meltrepro.publish import signature
from meltrepro.publish.entry import PublicEntry
from meltrepro.publish.make import fitting, make_entry
from meltrepro.publish.privacy import known_names, require_public, without
from meltrepro.record.campaign import IMPORTED
from meltrepro.record.reader import find_campaign
from meltrepro.settings import Settings
from meltrepro.workflow.replays import COMPARISON


@dataclass(frozen=True)
class Draft:
    """An entry that nobody has seen yet."""

    entry: PublicEntry
    content: bytes
    """Of its file."""
    campaign: Path
    """Folder of the campaign that it is of."""
    may_be_replay: bool
    """Whether the campaign is a replay, and nobody said of what."""
    imported: bool
    """Whether somebody else measured it."""

    @property
    def name(self) -> str:
        """What its file is called, if nobody says otherwise."""
        return f"{self.entry.id}.json"


@dataclass(frozen=True)
class PublishedEntry:
    """An entry on disk."""

    path: Path
    signature: Path | None
    """`None` where nobody signed it."""
    fingerprint: str | None = None
    """Of the key that did."""


def draft_entry(
    campaign: Path | str = "last",
    *,
    only: Sequence[str] = (),
    replay_of: Path | str | None = None,
    bundle: Path | str | None = None,
    url: str | None = None,
    leave_out: Sequence[str] = (),
    keep: Sequence[str] = (),
    settings: Settings | None = None,
) -> Draft:
    """The entry of a campaign, without the fields that `leave_out` names; nothing is written.

    `replay_of` is the campaign that this one repeats, `bundle` a file that repeats this one and `url` where that can be had.
    Raises `PrivateText` where a field has a name, a path, an address, a serial number or a secret in it and is not among those to
    `keep`; `UsageError`, `RecordError`, `BundleError`, `EntryError`.
    """
    settings = settings or settings_module.load()
    recorded = read_campaign(find_campaign(settings.records, str(campaign)))
    repeats = read_campaign(find_campaign(settings.records, str(replay_of))) if replay_of is not None else None
    if repeats is not None:
        repeats.verify()
    selection = Selection(only)
    wanted = frozenset(cell.id for cell in recorded.cells if selection.wants(cell.id))
    selection.refuse_idle(cell.id for cell in recorded.cells)
    if url is not None and bundle is None:
        raise EntryError(
            "an address of a bundle says nothing without its digest", hint="name the bundle too: --bundle FILE"
        )
    entry = make_entry(recorded, wanted, repeats=repeats, bundle=Path(bundle) if bundle is not None else None, url=url)
    entry = without(entry, leave_out)
    require_public(entry, known_names([recorded, *([repeats] if repeats is not None else [])]), [*keep, "bundle.url"])
    may_be_replay = repeats is None and (recorded.folder / COMPARISON).is_file()
    imported = (recorded.folder / IMPORTED).exists()
    return Draft(entry, fitting(entry), recorded.folder, may_be_replay, imported)


def write_entry(draft: Draft, path: Path | str | None = None, *, sign: Path | str | None = None) -> PublishedEntry:
    """Write an entry, and its signature beside it where there is a key to `sign` with; raises `EntryError`, `StoreError`."""
    out = Path(path or draft.name)
    signed = signature.sign(draft.content, Path(sign).expanduser()) if sign is not None else None
    beside = out.with_name(out.name + signature.SUFFIX)
    if beside.is_file():  # of an earlier entry
        remove(beside)
    write_bytes(out, draft.content)
    if signed is None:
        return PublishedEntry(out, None)
    write_bytes(beside, signed)
    return PublishedEntry(out, beside, signature.check(draft.content, signed).fingerprint)
