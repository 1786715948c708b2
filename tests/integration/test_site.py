"""The documentation as a site: it builds strictly, and needs no other host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` makes, which fails where a link or an anchor leads nowhere."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(["make", "docs", f"SITE={folder}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("broken", ["[nowhere](nowhere.md)", "[nowhere](lock.md#nowhere)"])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, broken: str) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements", "theme", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "glossary.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{broken}\n")
    done = subprocess.run(["make", "docs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "nowhere" in done.stdout + done.stderr


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\s\">]+)", text)
        loaded += [link for link in re.findall(r"<link\b[^>]*>", text) if "canonical" not in link]
        assert not [one for one in loaded if re.search(r"\bhttps?:", one)], page


def test_links_out_of_the_documentation_lead_nowhere_false(site: Path) -> None:
    """They name files of the repository, which a site does not have."""
    for page in site.rglob("*.html"):
        for link in re.findall(r"\bhref=\"?([^\s\">#]+)", page.read_text(encoding="utf-8")):
            if not link.startswith(("http:", "https:", "mailto:", "data:")) and page.name != "404.html":
                assert (page.parent / link).resolve().is_relative_to(site), f"{page}: {link}"
                assert (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.skipif(browser.PROGRAM is None, reason="needs Chromium")
def test_pages_are_readable_and_search_works_without_a_server(site: Path) -> None:
    text = browser.visible_text(f"{(site / 'protocol.html').as_uri()}?q=quarantine")
    assert "matching document" in text and "Exit codes" in text
