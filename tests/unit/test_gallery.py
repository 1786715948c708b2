"""Galleries: which entries are taken and why others are not, what a row says, and that no stranger's text is markup."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from meltrepro import workflow
from meltrepro.errors import EntryError, WrongSignature
from meltrepro.publish import signature
from meltrepro.publish.collect import Collection, RefusalKind, Standing, collect
from meltrepro.publish.entry import MOST_BYTES, PublicEntry, entry_bytes
from meltrepro.publish.rows import GalleryRow, Reproductions, rows
from meltrepro.publish.site import PAGE, gallery_files
from meltrepro.record import seal
from tests.support.entries import DEVICES, allow, cell, entry, make_key, put, replay_of
from tests.support.reports import HOSTILE


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder, name) for name in ("ann", "bob", "eve", "zoe")}


@pytest.fixture
def signers(tmp_path: Path, keys: dict[str, Path]) -> Path:
    """All but zoe."""
    return allow(tmp_path / "signers", **{name: key for name, key in keys.items() if name != "zoe"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "entries").mkdir()
    return tmp_path / "entries"


def refused(collection: Collection) -> dict[str, RefusalKind]:
    return {one.file: one.kind for one in collection.refused}


def standings(collection: Collection) -> dict[str, Standing]:
    return {one.file: one.standing for one in collection.taken}


def test_who_vouches_for_an_entry(folder: Path, keys: dict[str, Path], signers: Path) -> None:
    put(folder, "a", entry("a"), keys["ann"])
    put(folder / "below", "b", entry("b"), keys["zoe"])
    put(folder, "c", entry("c"))
    found = collect(folder, signers)
    assert standings(found) == {
        "a.json": Standing.known,
        "below/b.json": Standing.unknown,
        "c.json": Standing.unsigned,
    }
    assert [one.signer for one in found.taken] == ["ann@example.org", "", ""]
    assert standings(collect(folder))["a.json"] is Standing.unknown, "nobody said whose keys count"
    only = collect(folder, signers, signed_only=True)
    assert [one.file for one in only.taken] == ["a.json"]
    assert refused(only) == {"below/b.json": RefusalKind.unsigned, "c.json": RefusalKind.unsigned}


def test_what_is_not_taken_and_why(folder: Path, keys: dict[str, Path], signers: Path) -> None:
    good = entry_bytes(entry())
    put(folder, "aaa", entry(), keys["ann"])
    put(folder, "copy", good)
    put(folder, "changed", good.replace(b'"chat"', b'"talk"'))
    put(folder, "other", b'{"a": 1}')
    put(folder, "text", b"\xff\x00")
    put(folder, "nested", b"[" * 100_000)
    put(folder, "large", good + b" " * MOST_BYTES)
    put(folder, "forged", _resealed(entry("forged"), "Pixel 8"), keys["bob"])
    (folder / "forged.json").write_bytes(entry_bytes(entry("forged")))
    put(folder, "broken", entry("broken"))
    (folder / "broken.json.sig").write_bytes(b"no signature")
    put(folder, "much", entry("much"))
    (folder / "much.json.sig").write_bytes(b"x" * (signature.MOST_BYTES + 1))
    (folder / "link.json").symlink_to(folder / "aaa.json")
    os.mkfifo(folder / "pipe.json")
    put(folder, "linked", entry("linked"))
    (folder / "linked.json.sig").symlink_to(folder / "aaa.json.sig")
    (folder / "readme.md").write_text("no entry")
    found = collect(folder, signers)
    assert standings(found) == {"aaa.json": Standing.known}
    assert refused(found) == {
        "copy.json": RefusalKind.duplicate,
        "changed.json": RefusalKind.damaged,
        "other.json": RefusalKind.damaged,
        "text.json": RefusalKind.damaged,
        "nested.json": RefusalKind.damaged,
        "large.json": RefusalKind.too_large,
        "forged.json": RefusalKind.wrong_signature,
        "broken.json": RefusalKind.wrong_signature,
        "much.json": RefusalKind.too_large,
        "link.json": RefusalKind.unreadable,
        "pipe.json": RefusalKind.unreadable,
        "linked.json": RefusalKind.unreadable,
    }
    assert all(one.detail for one in found.refused)


def _resealed(what: PublicEntry, model: str) -> bytes:
    """What somebody writes who changes an entry and seals it anew."""
    document = json.loads(entry_bytes(what))
    document["devices"][0]["model"] = model
    return seal.sealed({name: value for name, value in document.items() if name != seal.SEAL})


def test_every_field_that_is_changed_and_sealed_anew_has_a_wrong_signature(keys: dict[str, Path]) -> None:
    from tests.unit.test_entry import changed, changes, whole

    content = entry_bytes(whole())
    made, document = signature.sign(content, keys["ann"]), json.loads(content)
    del document["seal"]
    for path, value in changes(document):
        found = changed(document, path, value)
        if found != document:
            with pytest.raises(WrongSignature):
                signature.check(seal.sealed(found), made)


def test_a_better_vouched_entry_keeps_its_place(folder: Path, keys: dict[str, Path], signers: Path) -> None:
    """Nobody displaces somebody's entry by publishing another of the same record, whatever its name."""
    put(folder, "a", _resealed(entry(), "Pixel 8"))
    put(folder, "b", _resealed(entry(), "Pixel 7"), keys["zoe"])
    put(folder, "c", entry(), keys["ann"])
    found = collect(folder, signers)
    assert standings(found) == {"c.json": Standing.known}
    assert refused(found) == {"a.json": RefusalKind.duplicate, "b.json": RefusalKind.duplicate}


def test_parts_of_a_record_are_rows_of_one(folder: Path) -> None:
    put(folder, "a", entry("one", [cell(1), cell(2)]))
    put(folder, "b", entry("one", [cell(2), cell(3)]))
    assert [(row.source.file, row.cell.number) for row in rows(collect(folder).taken)] == [
        ("a.json", 1),
        ("a.json", 2),
        ("b.json", 3),
    ]


def row_of(folder: Path, signers: Path, name: str) -> GalleryRow:
    return next(row for row in rows(collect(folder, signers).taken) if row.source.file == f"{name}.json")


def test_how_often_it_was_reproduced_counts_signers(folder: Path, keys: dict[str, Path], signers: Path) -> None:
    put(folder, "first", entry("first"), keys["ann"])
    put(folder, "bob1", replay_of("first", "bob"), keys["bob"])
    put(folder, "bob2", replay_of("first", "bob again"), keys["bob"])
    assert row_of(folder, signers, "first").tally == Reproductions(reproduced=1), "a signer counts once"
    put(folder, "ann", replay_of("first", "ann"), keys["ann"])
    put(folder, "zoe", replay_of("first", "zoe"), keys["zoe"])
    put(folder, "nobody", replay_of("first", "nobody", "DIFFERS"))
    assert row_of(folder, signers, "first").tally == Reproductions(reproduced=1, others=3), (
        "whom nobody knows, and the publisher"
    )
    put(folder, "eve", replay_of("first", "eve", "INCONCLUSIVE"), keys["eve"])
    assert row_of(folder, signers, "first").tally == Reproductions(reproduced=1, undecided=1, others=3)
    put(folder, "bob3", replay_of("first", "bob once more", "DIFFERS"), keys["bob"])
    assert row_of(folder, signers, "first").tally == Reproductions(differs=1, undecided=1, others=3), "the worst counts"
    put(folder, "far", replay_of("first", "eve elsewhere", number=2), keys["eve"])
    assert row_of(folder, signers, "first").tally.tried == 2, "of another cell"
    assert row_of(folder, signers, "bob1").tally == Reproductions()


def test_rows_have_real_devices_first_whatever_their_speed(folder: Path) -> None:
    put(folder, "a", entry("a", [cell(factor=100)], devices=[DEVICES[3]]))
    put(folder, "b", entry("b", [cell(factor=0.1)]))
    assert [row.device.virtual for row in rows(collect(folder).taken)] == [False, True]


def test_quality_is_of_the_same_weights_in_the_same_entry(folder: Path) -> None:
    scored = cell(2)
    fast, other = (
        cell(1).model_copy(update={"scores": {}}),
        cell(3, quantization="q8_0").model_copy(update={"scores": {}}),
    )
    made_up = cell(4, synthetic=True)
    put(folder, "a", entry("a", [fast, scored, other, made_up]))
    put(folder, "b", entry("b", [fast]))
    found = {(row.source.file, row.cell.number): row.quality for row in rows(collect(folder).taken)}
    assert found["a.json", 1] == {"accuracy.piqa": scored.scores["accuracy.piqa"].value}
    assert found["a.json", 3] == found["b.json", 1] == found["a.json", 4] == {}


def test_the_command_that_repeats_a_row(folder: Path) -> None:
    put(folder, "a", entry())
    put(folder, "b", entry("b", bundle=False))
    with_bundle, without = sorted(rows(collect(folder).taken), key=lambda row: row.source.file)
    bundle = with_bundle.source.entry.bundle
    assert bundle is not None
    name = f"{with_bundle.source.entry.id}.melt"
    assert with_bundle.commands == (
        f"curl -fLo {name} https://example.org/it.melt",
        f"echo '{bundle.sha256}  {name}' | sha256sum -c",
        f"meltrepro replay {name} --only 'smollm2-135m/q4_0/*/*/chat'",
    )
    assert without.commands == ()


def hostile() -> PublicEntry:
    """An entry that says in every text what no page may take for markup."""
    text = " ".join("".join(c for c in HOSTILE if c.isprintable()).split())[:150]
    told = cell().model_copy(
        update={"release": text, "source": text, "variant": text, "settings": {"a": text}, "effective": {"b": text}}
    )
    device = DEVICES[0].model_copy(
        update={"model": text, "facts": {"power_mode": text}, "calibration": {"rail": {text: [text]}}}
    )
    return entry("hostile", [told], devices=[device])


def test_hostile_text_stays_text(folder: Path) -> None:
    put(folder, "a", hostile())
    put(folder, "<img src=x>", b"{}")
    page = gallery_files(collect(folder), HOSTILE)[PAGE].decode()
    assert "<img" not in page
    assert page.count("</script>") == 1
    assert "7*7" in page, "no template is rendered twice"
    assert "49" not in page.split("7*7")[0][-20:]
    for unseen in ("\u202e", "\x00"):
        assert unseen not in page


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": {"sha256": "0" * 64, "bytes": 1, "url": "javascript:alert(1)"}},
        {"bundle": {"sha256": "0" * 64, "bytes": 1, "url": "https://example.org/'; rm -rf ~ \n#"}},
        {"meltrepro": "a\nb"},
        {"campaign": {"measured": "yesterday"}},
    ],
)
def test_what_would_mislead_a_shell_or_a_reader_is_damaged(folder: Path, change: dict[str, object]) -> None:
    document = json.loads(entry_bytes(entry()))
    del document["seal"]
    document |= {
        name: {**document[name], **value} if isinstance(value, dict) else value for name, value in change.items()
    }
    put(folder, "a", seal.sealed(document))
    assert refused(collect(folder)) == {"a.json": RefusalKind.damaged}


def test_the_address_of_a_bundle_is_one_word_to_a_shell(folder: Path) -> None:
    made = entry()
    assert made.bundle is not None
    url = "https://example.org/a';reboot;'$(id)`id`"
    put(folder, "a", made.model_copy(update={"bundle": made.bundle.model_copy(update={"url": url})}))
    import shlex

    assert shlex.split(rows(collect(folder).taken)[0].commands[0])[-1] == url


def test_the_site_holds_entries_with_their_signatures_and_is_the_same_again(
    folder: Path, tmp_path: Path, keys: dict[str, Path], signers: Path
) -> None:
    put(folder, "a", entry(), keys["ann"])
    put(folder, "b", entry("b"))
    out = tmp_path / "site"
    made = workflow.gallery(folder, out, signers=signers)
    first = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert sorted(Path(name).suffix for name in first) == [".html", ".json", ".json", ".sig"]
    assert made.page == out / PAGE
    again = collect(out / "entries", signers)
    assert len(again.taken) == 2
    assert not again.refused
    workflow.gallery(folder, out, signers=signers)
    assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()} == first
    (folder / "b.json").unlink()
    (out / "entries" / "mine.txt").write_text("stays")
    workflow.gallery(folder, out, signers=signers)
    assert len(list((out / "entries").glob("*.json"))) == 1
    assert (out / "entries" / "mine.txt").exists()


def test_a_site_never_lies_among_its_entries(folder: Path) -> None:
    put(folder, "a", entry())
    for out in (folder, folder / "site", folder.parent):
        with pytest.raises(EntryError, match="among the entries"):
            workflow.gallery(folder, out)
    assert (folder / "a.json").exists()


def test_a_folder_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.publish.collect.MOST_FILES", 2)
    for name in ("a", "b"):
        put(folder, name, entry(name))
    assert len(collect(folder).taken) == 2
    put(folder / "below", "c", entry("c"))
    with pytest.raises(EntryError, match="more than 2"):
        collect(folder)


def test_an_empty_folder_and_none_at_all(folder: Path, tmp_path: Path) -> None:
    made = workflow.gallery(folder, tmp_path / "site")
    assert "No entry could be taken" in made.page.read_text()
    with pytest.raises(EntryError, match="no folder"):
        collect(folder / "missing")
    with pytest.raises(EntryError, match="no such file of signers"):
        collect(folder, folder / "missing")
