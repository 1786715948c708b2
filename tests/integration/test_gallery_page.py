"""The gallery in a real browser: whole, readable, sorted and filtered, with figures, and deaf to what entries say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro import workflow
from tests.integration.test_report_page import FAINT
from tests.support import browser
from tests.support.devtools import Page, Scheme, page
from tests.support.entries import allow, entry, make_key, many, put, replay_of
from tests.unit.test_gallery import hostile

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")

FIGURE = """(id => { const f = document.getElementById(id), svg = f.querySelector('svg');
  if (f.hidden || !svg) return null;
  const box = svg.getBoundingClientRect();
  const inside = r => r.left >= box.left - 1 && r.right <= box.right + 1 && r.top >= box.top - 1 && r.bottom <= box.bottom + 1;
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const marks = [...svg.querySelectorAll('.mark')].map(m => m.getBoundingClientRect());
  const overlapping = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
      overlapping.push(texts[i][0] + ' / ' + texts[j][0]);
  }
  return {marks: marks.length, overlapping, outside: [...texts.filter(t => !inside(t[1])).map(t => t[0]), ...marks.filter(r => !inside(r)).map(() => 'mark')],
    letters: Math.min(...texts.map(t => Math.max(t[1].height, t[1].width)))};
})"""
SPEEDS = "[...document.querySelectorAll('#%s tr:not([hidden])')].map(r => JSON.parse(r.dataset.row).v.speed ?? null)"


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with page() as opened:
        yield opened


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gallery")
    ann, bob, eve = (make_key(folder, name) for name in ("ann", "bob", "eve"))
    full = folder / "full"
    for place, each in enumerate(many(24)):
        put(full, f"{place}", each, (ann, bob, None)[place % 3])
    put(full, "first", entry("first"), ann)
    put(full, "bob", replay_of("first", "bob"), bob)
    put(full, "eve", replay_of("first", "eve"), eve)
    put(full, "hostile", hostile())
    put(full, "bad", b"{}")
    signers = allow(folder / "signers", ann=ann, bob=bob)
    (folder / "empty").mkdir()
    return {
        name: workflow.gallery(folder / name, folder / f"{name}-site", signers=signers).page
        for name in ("full", "empty")
    }


def loaded(tab: Page, path: Path, width: int = 1280, scheme: Scheme = "light") -> None:
    url = path.as_uri()
    tab.load(url, width=width, scheme=scheme)
    assert tab.requests() == [url], "the page asked for something from outside"
    assert tab.problems() == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre')).map(e => e.outerHTML.slice(0, 80))"
    assert tab.evaluate(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_page_is_whole_and_can_be_read(tab: Page, sites: dict[str, Path], width: int, scheme: Scheme) -> None:
    loaded(tab, sites["full"], width, scheme)
    for id in ("figure-real", "figure-virtual"):
        figure = tab.evaluate(f"{FIGURE}('{id}')")
        assert figure["marks"] > 10, figure
        assert figure["overlapping"] == []
        assert figure["outside"] == []
        assert figure["letters"] >= 9
    tab.evaluate("document.querySelector('#real details').open = true")
    assert tab.evaluate(FAINT) == {}
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(v => v < 80)")
    assert dark is (scheme == "dark")


def test_rows_are_sorted_and_virtual_ones_stay_by_themselves(tab: Page, sites: dict[str, Path]) -> None:
    loaded(tab, sites["full"])
    assert "say nothing of real ones" in tab.evaluate("document.getElementById('virtual-head').innerText")
    real, virtual = (tab.evaluate(SPEEDS % body) for body in ("real", "virtual"))
    assert real == sorted(real, reverse=True)
    assert virtual == sorted(virtual, reverse=True)
    tab.evaluate("document.querySelector('[data-sort=speed]').click()")
    assert tab.evaluate(SPEEDS % "real") == real[::-1]
    assert tab.evaluate("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    tab.evaluate("document.querySelector('[data-sort=model]').click()")
    names = tab.evaluate(
        "[...document.querySelectorAll('#real tr td:first-child')].map(c => c.firstChild.textContent.trim())"
    )
    assert names == sorted(names)
    assert tab.evaluate("document.querySelectorAll('#virtual tr').length") == len(virtual)


def test_filters_hide_rows_and_points(tab: Page, sites: dict[str, Path]) -> None:
    loaded(tab, sites["full"])
    whole = tab.evaluate(f"{FIGURE}('figure-real')")["marks"]
    choose = (
        "(s => { s.value = '=%s'; s.dispatchEvent(new Event('change')); })(document.querySelector('[data-filter=%s]'))"
    )
    tab.evaluate(choose % ("onnxruntime 1.29.0", "engine"))
    engines = tab.evaluate(
        "[...document.querySelectorAll('#rows tbody tr[data-row]:not([hidden])')].map(r => JSON.parse(r.dataset.row).f.engine)"
    )
    assert set(engines) == {"onnxruntime 1.29.0"}
    assert 0 < tab.evaluate(f"{FIGURE}('figure-real')")["marks"] < whole
    assert tab.evaluate("document.getElementById('count').textContent").startswith(f"{len(engines)} of ")
    tab.evaluate(choose % ("android, virtual", "kind"))
    assert tab.evaluate(f"{FIGURE}('figure-real')") is None
    assert tab.evaluate(f"{FIGURE}('figure-virtual')")["marks"] > 0
    assert tab.evaluate("document.getElementById('real').hidden")
    tab.evaluate("document.getElementById('reset').click()")
    assert tab.evaluate(f"{FIGURE}('figure-real')")["marks"] == whole
    tab.evaluate(choose % ("reproduced by others", "repeated"))
    assert tab.evaluate("document.getElementById('count').textContent").startswith("1 of ")
    assert tab.evaluate("document.getElementById('virtual-head').hidden")


@pytest.mark.parametrize("axis", ["energy", "score:accuracy.piqa", "prefill"])
def test_other_figures_can_be_chosen(tab: Page, sites: dict[str, Path], axis: str) -> None:
    loaded(tab, sites["full"])
    tab.evaluate(
        f"(s => {{ s.value = '{axis}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('x'))"
    )
    figure = tab.evaluate(f"{FIGURE}('figure-real')")
    assert figure["marks"] > 10
    assert figure["outside"] == figure["overlapping"] == []


def test_a_row_has_the_command_and_its_entry(tab: Page, sites: dict[str, Path]) -> None:
    loaded(tab, sites["full"])
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = tab.evaluate("document.getElementById('rows').innerText")
    assert "sha256sum -c" in text
    assert "meltrepro replay" in text
    links = tab.evaluate("[...document.querySelectorAll('td details a')].map(a => a.getAttribute('href'))")
    assert links
    assert all((sites["full"].parent / link).is_file() for link in links)
    assert "bad.json" in tab.evaluate("document.getElementById('refused').innerText")


def test_nothing_that_an_entry_says_is_done(tab: Page, sites: dict[str, Path]) -> None:
    loaded(tab, sites["full"])
    assert tab.evaluate("document.images.length") == 0
    assert tab.evaluate("document.scripts.length") == 1
    tab.evaluate(
        "(e => { e.textContent = 'window.done = 1'; document.body.append(e); })(document.createElement('script'))"
    )
    assert tab.evaluate("window.done === undefined"), "no script but the page's own is run"


def test_without_an_entry(tab: Page, sites: dict[str, Path]) -> None:
    loaded(tab, sites["empty"], 390)
    assert "No entry could be taken" in tab.evaluate("document.body.innerText")


def test_the_picture_shows_points_of_three_engines(tab: Page, sites: dict[str, Path], tmp_path: Path) -> None:
    """What the browser paints, not what it lays out."""
    import numpy as np
    from PIL import Image

    loaded(tab, sites["full"])
    tab.picture(tmp_path / "figure.png", selector="#figure-real")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int).reshape(-1, 3)
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):
        assert (np.abs(pixels - colour).max(axis=1) <= 2).sum() > 20, colour
