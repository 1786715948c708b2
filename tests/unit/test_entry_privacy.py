"""What is looked for in an entry before anybody sees it, and how to go on where something was found."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from meltrepro.errors import EntryError, PrivateText
from meltrepro.measure.records import read_campaign
from meltrepro.publish.entry import PublicEntry
from meltrepro.publish.privacy import hits, known_names, require_public, without
from tests.support.campaigns import build_campaign
from tests.support.entries import DEVICES, cell, entry


def saying(text: str) -> PublicEntry:
    """An entry in which an engine says something of itself."""
    told = cell().model_copy(update={"effective": {"effective.version": text}})
    return entry(cells=[told])


PRIVATE = {
    "a path": [
        "/home/ann/models/x.gguf",
        "built in /opt/engine",
        "C:\\Users\\ann",
        "~/models",
        "file:///x",
        "../up",
        "/a/b/c",
    ],
    "an e-mail address": ["ann@example.org"],
    "an IP address": ["10.0.0.7", "at 192.168.1.20:8080", "fe80::1ff:fe23:4567:890a", "2001:db8:0:0:0:0:2:1", "::1"],
    "a hardware address": ["00:1a:2b:3c:4d:5e", "00-1A-2B-3C-4D-5E"],
    "an address with a login": ["https://ann:pw@example.org/x"],
    "a device's number": ["00008120-0011223344556677", "a" * 40, "356938035643809"],
    "a UUID": ["123e4567-e89b-12d3-a456-426614174000"],
    "a secret": [
        "hf_abcdefghijklmnop",
        "ghp_0123456789abcdef",
        "token=abc",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.e30",
    ],
}
PUBLIC = [
    *("2026.4.1-22982-e213a147257-releases/2026/4", "meta=1.0;ov=2026.4.1;isa=AArch64", "f16/f16", "36.4.3", "0-1"),
    *(
        "llama.cpp 2026-10-01",
        "6.18.44-fc-v1098",
        "token embeddings",
        "1.29.0",
        "AVX2 + FMA",
        "CPU part 0xd42",
        "6.1 or 6.2",
    ),
]


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in PRIVATE.items() for text in texts])
def test_what_is_private_is_found(what: str, text: str) -> None:
    document = saying(text).model_dump(mode="json", exclude_none=True)
    found = hits(document, {})
    assert what in {hit.what for hit in found}
    assert {hit.field for hit in found} == {"cells.*.effective.effective.version"}


@pytest.mark.parametrize("text", PUBLIC)
def test_what_everybody_may_know_is_not(text: str) -> None:
    assert hits(saying(text).model_dump(mode="json", exclude_none=True), {}) == []


def test_names_of_users_machines_and_devices_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "annmiller")
    monkeypatch.setattr(socket, "gethostname", lambda: "ann-laptop.lan")
    folder = build_campaign(tmp_path)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["targets"] = {
        "phone": {"kind": "android", "serial": "R58M123ABCD"},
        "board": {"kind": "jetson", "host": "bob@orin-7.lab.example"},
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    known = known_names([read_campaign(folder)])
    assert known.keys() >= {"annmiller", "ann-laptop.lan", "ann-laptop", "R58M123ABCD", "orin-7.lab.example"}
    for text in ("by AnnMiller", "ann-laptop", "serial R58M123ABCD", "orin-7.lab.example", "x-annmiller_1"):
        assert hits(saying(text).model_dump(mode="json"), known), text
    assert hits(saying("channmillers").model_dump(mode="json"), known) == [], "a part of another word"


def test_names_that_are_nobodys_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "root")
    assert not {"root", "localhost", "host"} & known_names([read_campaign(build_campaign(tmp_path))]).keys()


def test_a_key_is_looked_at_like_a_value() -> None:
    told = cell().model_copy(update={"effective": {"effective.annmiller": 1}})
    (hit,) = hits(entry(cells=[told]).model_dump(mode="json"), {"annmiller": "the name of this user"})
    assert hit.field == "cells.*.effective.effective.annmiller"


def test_a_finding_names_field_and_way_and_the_way_works() -> None:
    private = saying("/home/ann/x")
    with pytest.raises(PrivateText, match=r"cells\.\*\.effective\.effective\.version: a path") as caught:
        require_public(private, {})
    assert "--leave-out 'cells.*.effective.effective.version'" in str(caught.value.hint)
    left = without(private, ["cells.*.effective.effective.version"])
    assert left.cells[0].effective == {}
    require_public(left, {})
    require_public(private, {}, keep=["cells.*.effective.effective.version"])


def test_what_no_entry_can_be_without_is_withheld_or_stays() -> None:
    device = DEVICES[0].model_copy(update={"model": "Ann's phone"})
    left = without(entry(devices=[device]), ["devices.*.model"])
    assert left.devices[0].model == "withheld"
    assert without(entry(), ["cells.0.model"]).cells[0].model == "withheld"
    assert without(entry(), ["bundle"]).bundle is None
    assert without(entry(), ["devices.*.facts.soc"]).devices[0].facts.keys() == {"arch", "cores"}
    several = cell().model_copy(update={"causes": ["noisy", "throttled", "too-hot"]})
    assert without(entry(cells=[several]), ["cells.*.causes.*"]).cells[0].causes == []
    for field in ("campaign.record", "cells.*.digests.model", "cells", "devices", "cells.*.number"):
        with pytest.raises(EntryError, match="no entry can be without it"):
            without(entry(), [field])
    with pytest.raises(EntryError, match="no such field"):
        without(entry(), ["cells.*.prompt"])
