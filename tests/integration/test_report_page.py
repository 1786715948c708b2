"""The report in a real browser: wide and narrow, light and dark, full and empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.report.files import PAGE, report_files, write_report
from tests.support import browser
from tests.support.devtools import Page, Scheme, page
from tests.support.reports import content, everything

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")

FIGURES = """[...document.querySelectorAll('figure')].map(f => {
  const drawings = [...f.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0);
  const svg = drawings[0];
  const box = svg.getBoundingClientRect();
  const inside = r => r.left >= box.left - 1 && r.right <= box.right + 1 && r.top >= box.top - 1 && r.bottom <= box.bottom + 1;
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const marks = [...svg.querySelectorAll('.mark')].map(m => m.getBoundingClientRect());
  const overlapping = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 3) overlapping.push(texts[i][0] + ' / ' + texts[j][0]);
  }
  return {name: f.id, drawings: drawings.length, marks: marks.length, overlapping,
    letters: Math.min(...texts.map(t => t[1].height), ...texts.filter(t => t[0].length > 1 && t[1].height > 30).map(t => t[1].width)),
    hidden: svg.getBoundingClientRect().right > innerWidth,
    empty: marks.filter(r => r.width < 2 || r.height < 2).length,
    outside: [...texts.filter(t => !inside(t[1])).map(t => t[0]), ...marks.filter(r => !inside(r)).map(() => 'mark')]};
})"""

UNTOLD = """[...document.querySelectorAll('section.table')].filter(s => {
  const box = s.querySelector('.scroll'), hint = s.querySelector('.hint');
  return box.scrollWidth > box.clientWidth + 1 && !(hint && hint.getBoundingClientRect().height);
}).map(s => s.id)"""
"""Tables that must be scrolled sideways and do not say so."""

FAINT = """(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number).map(v => c.startsWith('color(') ? v * 255 : v);
  const light = c => parts(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const found = {};
  const look = (selector, property, least) => document.querySelectorAll(selector).forEach(e => {
    const c = contrast(getComputedStyle(e)[property], ground(e));
    if (c < least) found[selector + ' ' + (e.getAttribute('class') || '')] = Math.round(c * 100) / 100; });
  look('p, td, th, li, h1, h2, h3, a, summary, .interval, .below, .tag', 'color', 4.5);
  look('svg.fig text', 'fill', 4.5);
  look('svg.fig .mark', 'stroke', 3);
  return found;
})()"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with page() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder / "full", report_files(everything()))
    write_report(folder / "empty", report_files(content([])))
    return folder


def _loaded(tab: Page, path: Path, width: int, scheme: Scheme) -> None:
    """Open a page with all that is folded, and see that it is whole."""
    url = path.as_uri()
    tab.load(url, width=width, scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.requests() == [url], "the page asked for something from outside"
    assert tab.problems() == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.images.length") == 0
    wide = "[...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre')).map(e => e.outerHTML.slice(0, 80))"
    assert tab.evaluate(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_page_is_whole_and_can_be_read(tab: Page, folder: Path, width: int, scheme: Scheme) -> None:
    _loaded(tab, folder / "full" / PAGE, width, scheme)
    figures = tab.evaluate(FIGURES)
    assert len(figures) == 14
    for figure in figures:
        assert figure["marks"] > 0, figure
        assert figure["drawings"] == 1, figure["name"]
        assert figure["letters"] >= 9, "too small to read"
        assert not figure["hidden"], "a figure needs no scrolling"
        assert not figure["empty"], figure
        assert figure["overlapping"] == [], figure["name"]
        assert figure["outside"] == [], figure["name"]
    assert tab.evaluate(UNTOLD) == []
    assert tab.evaluate(FAINT) == {}
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(v => v < 80)")
    assert dark is (scheme == "dark")


def test_a_report_without_results_is_whole_too(tab: Page, folder: Path) -> None:
    _loaded(tab, folder / "empty" / PAGE, 390, "light")
    assert tab.evaluate("document.querySelectorAll('svg').length") == 0
    text = tab.evaluate("document.body.innerText")
    assert text.count("NOT MEASURED:") >= 13
    repeated = """[...document.querySelectorAll('.part')].filter(p => {
      const said = [...p.querySelectorAll('.gap')].map(g => g.innerText);
      return new Set(said).size < said.length; }).map(p => p.id)"""
    assert tab.evaluate(repeated) == [], "a reason is given once in a section"


def test_wide_tables_scroll_within_their_box(tab: Page, folder: Path) -> None:
    _loaded(tab, folder / "full" / PAGE, 390, "light")
    box = "document.querySelector('#table-throughput .scroll')"
    assert tab.evaluate(f"{box}.scrollWidth > {box}.clientWidth + 200")
    tab.evaluate(f"{box}.scrollLeft = 10000")
    assert tab.evaluate(f"{box}.scrollLeft > 200 && window.scrollX === 0")


def test_findings_and_sizes_are_read_without_scrolling(tab: Page, folder: Path) -> None:
    for width in (390, 768, 1280):
        _loaded(tab, folder / "full" / PAGE, width, "light")
        for name in ("findings", "paper-sizes"):
            box = f"document.querySelector('#table-{name} .scroll')"
            assert tab.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), (name, width)
            places = f"[...document.querySelectorAll('#table-{name} td')].map(c => c.getBoundingClientRect().right)"
            assert max(tab.evaluate(places)) <= width


def test_paper_is_wide_enough(tab: Page, folder: Path) -> None:
    _loaded(tab, folder / "full" / PAGE, 794, "dark")
    tab.print_layout()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("document.querySelector('#table-cells table').getBoundingClientRect().height") > 300


def test_the_picture_shows_the_drawings(tab: Page, folder: Path, tmp_path: Path) -> None:
    """What the browser paints, not what it lays out: ink of both series in the figure of throughput."""
    import numpy as np
    from PIL import Image

    _loaded(tab, folder / "full" / PAGE, 1280, "light")
    tab.picture(tmp_path / "figure.png", selector="#figure-throughput-generation")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int).reshape(-1, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (np.abs(pixels - colour).max(axis=1) <= 2).sum() > 300, colour
