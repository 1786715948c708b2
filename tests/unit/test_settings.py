"""Variables of the environment: what cannot be meant is refused by name, and each stands in one page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            (name, value)
            for name in ("MELTREPRO_HOME", "MELTREPRO_CACHE")
            for value in ("~nouser-x/y", "x" * 300, "a/" * 3000)
        ),
        ("MELTREPRO_MIRRORS", "~nouser-x/y"),
        ("MELTREPRO_HOME", str(ROOT / "README.md")),
        *(("MELTREPRO_JOBS", value) for value in ("0", "-1", "²", "9" * 5000, "1.5", "two", " ")),
        *(("MELTREPRO_OFFLINE", value) for value in ("2", "maybe", "9" * 5000, "-")),
        *(("MELTREPRO_LOGINS", value) for value in ("https://x", "x/y", "x:443", "*", "x;y", "ü" * 5000)),
        ("MELTREPRO_BASE_IMAGE", "debian:bookworm"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable) as caught:
        settings.load({variable: value})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["0", "", "false", "No", "off"])
def test_what_is_off_is_off(value: str) -> None:
    assert settings.load({"MELTREPRO_OFFLINE": value}).offline is False


@pytest.mark.parametrize("value", ["1", "true", "Yes", " on "])
def test_what_is_on_is_on(value: str) -> None:
    assert settings.load({"MELTREPRO_OFFLINE": value}).offline is True


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    names = re.findall(r"`(MELTREPRO_\w+)`", (ROOT / "docs/environment.md").read_text(encoding="utf-8"))
    assert settings.load(dict.fromkeys(names, "")) == settings.load({})


def test_places_may_be_relative_or_begin_with_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    loaded = settings.load({"MELTREPRO_HOME": "a b/ü", "MELTREPRO_CACHE": "~/cache"})
    assert (loaded.home, loaded.cache) == (tmp_path / "a b/ü", tmp_path / "user/cache")


def test_servers_that_get_a_login() -> None:
    named = settings.load({"MELTREPRO_LOGINS": " Models.Example.org,git.example.org ::1,"}).logins
    assert named == {"models.example.org", "git.example.org", "::1"}


def test_every_variable_stands_in_the_page_of_all() -> None:
    page = set(re.findall(r"MELTREPRO_[A-Z_]+[A-Z]", (ROOT / "docs/environment.md").read_text(encoding="utf-8")))
    files = [path for folder in ("meltrepro", "images") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [
        path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in (".py", ".sh", ".h", ".cpp", ".m", ".mm", ".j2")
    ]
    assert page == {name for text in texts for name in re.findall(r"MELTREPRO_[A-Z_]+[A-Z]", text)}
    assert set(re.findall(r"MELTREPRO_\w+", settings.__doc__ or "")) <= page
