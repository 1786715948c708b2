"""Texts of strangers: every one is a value or one typed error, whatever is in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro import settings as settings_module
from meltrepro.cli import app
from meltrepro.cli.terminal import safe_streams
from meltrepro.errors import CorruptStore, LockError, ManifestError, SourceError, TrackingError
from meltrepro.errors import UsageError as Usage
from meltrepro.manifest.loader import load_manifest, parse_manifest
from meltrepro.manifest.lock import load_lock
from meltrepro.store.cas import Store
from meltrepro.store.mirror import load_mirrors
from meltrepro.store.names import local_path
from meltrepro.track.places import choose
from meltrepro.untrusted import MOST_INT, load_json, open_regular, read_regular, whole_number
from tests.fuzz.kinds import REFS
from tests.support.campaigns import build_campaign
from tests.support.manifests import GOOD, write

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MOST_INT, MOST_INT) | st.floats(-1e30, 1e30) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


# -- texts and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        str(MOST_INT + 1),
        "1e999",
        "-1e31",
        "NaN",
        "[-Infinity]",
        "[" * 100_000,
        '{"a": ' * 5000,
        "[" * 65 + "]" * 65,
        '{"a": 1, "a": 2}',
        '"\\ud800"',
        b"\xff\xfe[\x00]\x00",
        "",
        "{",
    ],
)
def test_a_text_that_is_no_json_of_ours(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        load_json(text)


@given(VALUES)
def test_json_that_python_writes_is_read_back(value: Any) -> None:
    assert load_json(json.dumps(value)) == value


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_only_regular_files_are_opened(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=r"regular file|Is a directory"):
        open_regular(tmp_path / "x")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 101)
    assert len(read_regular(tmp_path / "x", 101)) == 101
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "x", 100)


# -- manifests, locks, mirror maps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["!!int x", "!!bool x", "!!timestamp 2024-99-99", "9" * 5000, "1" + "0" * 40, "1e300"]
)
@pytest.mark.parametrize(
    "field", ["meltrepro", "protocol.timeout_s", "workloads.chat.context", "workloads.chat.max_tokens"]
)
def test_a_manifest_of_a_bundle_is_read_as_ones_own_is(field: str, value: str) -> None:
    *above, key = field.split(".")
    text = (
        "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(above)) + f"{'  ' * len(above)}{key}: {value}\n"
    )
    with pytest.raises(ManifestError, match=key):
        parse_manifest(text.encode())


def test_a_date_is_text_as_it_is_in_ones_own_manifest() -> None:
    with pytest.raises(ManifestError, match="meltrepro: expected 1, got '2024-99-99'"):
        parse_manifest(GOOD.replace("meltrepro: 1", "meltrepro: 2024-99-99").encode())
    assert parse_manifest(GOOD.encode()).name == "small"


@pytest.mark.parametrize("name", ['"\\0"', '"a\\0b"', "x" * 300, "a/" * 3000, "~nobody-at-all/x"])
def test_a_file_name_that_no_disk_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="include"):
        load_manifest(write(tmp_path, f"include: [{name}]\n{GOOD}"))


@pytest.mark.timeout(20)
def test_manifests_locks_and_mirror_maps_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.lock.yaml").symlink_to("/dev/zero")
    with pytest.raises(ManifestError, match="not a regular file"):
        load_manifest(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="not a regular file"):
        load_manifest(write(tmp_path, f"include: [pipe]\n{GOOD}"))
    with pytest.raises(LockError, match="not a regular file"):
        load_lock(tmp_path / "zero.lock.yaml")
    for file in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(Usage, match="not a regular file"):
            load_mirrors(file)


# -- the store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(REFS))
@pytest.mark.parametrize(
    "content", ["{}", '{"digest": 5}', '{"digest": "x"}', '{"packages": 5}', "[]", "{", "9" * 5000, "[" * 5000]
)
def test_a_damaged_ref_is_set_aside(tmp_path: Path, kind: str, content: str) -> None:
    store = Store(tmp_path)
    store.put_ref(kind, "key", REFS[kind])
    assert store.get_ref(kind, "key") == REFS[kind]
    path = next((tmp_path / "refs" / kind).glob("*.json"))
    path.write_text(content)
    with pytest.raises(CorruptStore, match=r"is damaged: .*it was set aside"):
        store.get_ref(kind, "key")
    assert store.get_ref(kind, "key") is None


# -- the environment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("MELTREPRO_HOME", "MELTREPRO_CACHE", "MELTREPRO_MIRRORS")
            for value in ("~nobody-at-all/x", "x" * 300, "a/" * 3000)
        ),
        *(("MELTREPRO_JOBS", value) for value in ("²", "9" * 5000, "0", "-1", "1_0", "٣")),
        ("MELTREPRO_BASE_IMAGE", "x" * 5000),
    ],
)
def test_a_variable_that_cannot_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    assert app.main(["show", "--list"]) == Usage.exit_code
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {name}: ") and len(shown) < 1000


def test_a_fault_is_told_wherever_its_traceback_cannot_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where what is wrong with the settings is itself a fault."""

    def fails(*_: object) -> Any:
        raise RuntimeError("no settings")

    monkeypatch.setattr(settings_module, "load", fails)
    assert app.main(["show", "--list"]) == app.CRASH_EXIT
    assert "no traceback saved: no settings" in capsys.readouterr().err


@pytest.mark.parametrize("uri", ["http://[", "https://h:port", "http://h:99999"])
def test_a_tracking_address_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    with pytest.raises(TrackingError, match="is no URI"):
        choose({"MLFLOW_TRACKING_URI": uri}, None, "sqlite:///x")
    build_campaign(tmp_path)
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert app.main(["sync"]) == TrackingError.exit_code
    with pytest.raises(ManifestError, match=r"tracking\.uri: expected an address"):
        parse_manifest(f"{GOOD}tracking: {{uri: '{uri}'}}\n".encode())


@pytest.mark.parametrize("written", ["~nobody-at-all/x", "x" * 300, "a\0b"])
def test_a_path_that_cannot_be_looked_at(tmp_path: Path, written: str) -> None:
    with pytest.raises(SourceError, match="cannot be looked at"):
        local_path(tmp_path, written)


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("²", None), ("9" * 5000, None), ("-1", None), ("", None), ("1 ", None)]
)
def test_numbers_of_headers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


# -- terminals ----------------------------------------------------------------------------------------------------

UNSEEN = set("\x1b\x9b\x07\r\u202e\u200b")
STEERING = "\x1b[2J\x9b31m\x07\r\u202e\u200b\x1b]8;;http://h\x1b\\"


@pytest.fixture
def skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = build_campaign(tmp_path)
    document = json.loads((folder / "campaign.json").read_bytes())
    document["skipped"] = [{"id": "m/q/f/t/w", "reason": f"needs{STEERING} [bold]more[/]"}]
    (folder / "campaign.json").write_text(json.dumps(document))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    yield folder


@pytest.mark.usefixtures("skipped")
@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_bundle_says_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert app.main(["show"]) == 0
    shown = capsys.readouterr().out
    assert "skipped: m/q/f/t/w: needs?[2J?31m" in shown and "[bold]more[/]" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("skipped")]
    assert not set(line) & UNSEEN


@pytest.mark.usefixtures("skipped")
@pytest.mark.parametrize("value", ["²", "9" * 5000, "-1", "0", "x"])
def test_a_width_that_no_terminal_has(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, value)
    assert app.main(["show"]) == 0


def test_a_stream_lets_nothing_through(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    with safe_streams():
        print(f"a\t{STEERING}b")
        typer.echo(f"a{STEERING}b", err=True)
    out, err = capsys.readouterr()
    assert out.startswith("a\t?[2J?31m????") and out.endswith("b\n") and err.endswith("b\n")
    assert not set(out + err) & UNSEEN
