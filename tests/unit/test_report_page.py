"""The page and its figures: whole, without anything from outside, the same bytes each time, and safe."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError, ReportDiffers
from meltrepro.report.content import sections
from meltrepro.report.figures import forest, scatter
from meltrepro.report.figures.scale import scale
from meltrepro.report.figures.svg import NARROW, WIDE, shortened, width_of
from meltrepro.report.files import (
    INDEX,
    PAGE,
    campaigns_of,
    compare_report,
    holds_report,
    report_files,
    write_report,
)
from meltrepro.report.results import Device, Results
from meltrepro.report.values import NOT_MEASURED, Figure
from tests.support.reports import HOSTILE, cell, content, everything

ROOT = Path(__file__).parents[2]


class _Tags(HTMLParser):
    """Every tag with its attributes, and the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return report_files(everything())


@pytest.mark.slow
def test_the_page_needs_nothing_and_runs_nothing(files: dict[str, bytes]) -> None:
    page = _Tags(files[PAGE].decode())
    assert not {"script", "img", "link", "iframe", "object", "embed", "image", "use"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style")}, tag
        assert (attributes.get("href") or "#").startswith("#"), attributes
    style = "".join(page.texts)
    assert "url(" not in style
    assert "@import" not in style


def test_links_and_ids_fit(files: dict[str, bytes]) -> None:
    page = _Tags(files[PAGE].decode())
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    labels = {part for _, attributes in page.tags for part in (attributes.get("aria-labelledby") or "").split() if part}
    assert targets | labels <= set(ids)
    assert len(labels) >= 20


def test_every_section_is_there_with_its_figures(files: dict[str, bytes]) -> None:
    page = files[PAGE].decode()
    for part in sections(everything()):
        assert f'<section class="part" id="{part.id}">' in page
        for figure in part.figures:
            counts = set()
            for text in (figure.svg, figure.narrow):
                drawing = ElementTree.fromstring(str(text))
                counts.add(sum("mark" in (one.get("class") or "").split() for one in drawing.iter()))
                described = [one.text for one in drawing if one.tag in ("title", "desc")]
                assert all(described)
                assert len(described) == 2
            assert len(counts) == 1, "wide and narrow show the same"
            assert counts != {0}, figure.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["empty", "full"])
def test_the_same_content_gives_the_same_bytes_in_another_process(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support import reports; "
        "from meltrepro.report.files import report_files, write_report; "
        f"made = reports.everything() if {name == 'full'} else reports.content([]); "
        "write_report(Path(sys.argv[1]), report_files(made))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "COLUMNS": "20"}
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, env=environment, check=True, timeout=120)
    compare_report(tmp_path, files if name == "full" else report_files(content([])))


def test_a_report_of_nothing_says_so_in_every_place() -> None:
    made = report_files(content([]))
    text = made[PAGE].decode()
    parts = sections(content([]))
    missing = [(part.id, f"figure-{one.name}", one.title, one.reason) for part in parts for one in part.figures]
    missing += [(part.id, f"table-{one.name}", one.title, one.reason) for part in parts for one in part.tables]
    missing = [one for one in missing if one[3] is not None]
    assert len(missing) >= 20
    assert text.count(f"<b>{NOT_MEASURED}:</b>") == len({(part, reason) for part, _, _, reason in missing})
    for _, id, title, _ in missing:
        assert f'id="{id}"' in text
        assert title in text
    assert "left-out" not in text, "there is no study that could have left anything out"
    assert "<svg" not in text


def _hostile(text: str) -> dict[str, bytes]:
    device = Device(text, "android", text, None, virtual=True, power_mode=text)
    bad = cell("smollm2-135m", "q4_0", 1.35e8, device=device, energy=True)
    bad = replace(bad, reason=text, model=text, quantization=text, workload=text, release=text, framework=text)
    worse = replace(bad, state="failed", metrics={}, unavailable={"energy_per_token_j": text})
    made = content([bad, worse, replace(everything().results.cells[1], model=text)])
    return report_files(replace(made, results=Results(made.results.cells, dict.fromkeys(made.results.names, text))))


def test_hostile_text_stays_text() -> None:
    clean = _Tags(report_files(content([cell("a", "q4_0", 1e9)]))[PAGE].decode())
    made = _hostile(HOSTILE)
    page = _Tags(made[PAGE].decode())
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in clean.tags} | {"sup", "li", "ol", "rect", "g"}
    assert any("<img src=x" in text for text in page.texts)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "49" not in {text.strip() for text in page.texts}
    assert b"\x00" not in made[PAGE]
    for name, data in made.items():
        if name.endswith(".tex"):
            assert b"\\input" not in data
    for one in re.findall(r"<svg.*?</svg>", made[PAGE].decode(), re.DOTALL):
        ElementTree.fromstring(one)


@pytest.mark.parametrize("text", ["", " ", "]]>", "-->", "\ud800", "A" * 3000, "模型", "=cmd|' /C calc'!A0"])
def test_odd_names_break_no_drawing(text: str) -> None:
    for one in re.findall(r"<svg.*?</svg>", _hostile(text)[PAGE].decode(), re.DOTALL):
        ElementTree.fromstring(one)


def test_a_figure_has_a_drawing_or_a_reason() -> None:
    with pytest.raises(ValueError, match="a drawing or a reason"):
        Figure("x", "x", "x")
    with pytest.raises(ValueError, match="a drawing or a reason"):
        Figure("x", "x", "x", "<svg/>", "none")


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20), st.sampled_from([None, False]), st.booleans())
def test_scales_hold_their_values_and_have_ticks(values: list[float], log: bool | None, zero: bool) -> None:
    made = scale(values, 0, 100, log=log, zero=zero)
    for value in values:
        assert -1e-6 <= made.at(value) <= 100 + 1e-6
    places = [made.at(value) for value, _ in made.ticks()]
    assert places == sorted(places)
    assert 1 <= len(places) <= 12


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20))
def test_logarithmic_scales(values: list[float]) -> None:
    made = scale(values, 0, 100, log=True)
    assert made.log
    names = [name for _, name in made.ticks()]
    assert 1 <= len(names) == len(set(names))


def test_an_axis_is_logarithmic_where_values_are_far_apart_and_says_so() -> None:
    assert scale([1, 14], 0, 1, log=None).named("x") == "x"
    assert scale([1, 20], 0, 1, log=None).named("x") == "x (logarithmic)"
    assert not scale([0, 20], 0, 1, log=None).log


@given(st.text(max_size=60), st.floats(20, 400))
def test_a_shortened_text_fits_or_is_as_short_as_can_be(text: str, room: float) -> None:
    shown = shortened(text, room)
    assert width_of(shown) <= room or len(shown) == 2


def test_figures_survive_values_that_are_all_the_same_or_zero() -> None:
    marks = tuple(forest.Mark(0, 0.0, 0.0, 0.0, "x") for _ in range(2))
    plot = forest.Forest((forest.Panel("p", (forest.Row("r", marks),)),), ("one",), "axis")
    assert "nan" not in forest.draw("n", "t", "a", plot)
    points = (scatter.Dot(2.0, 2.0), scatter.Dot(2.0, 2.0, y_range=(2.0, 2.0)))
    panel = scatter.Plot("p", "x", "y", (scatter.Dots(0, points, line=True),), x_log=True, y_log=True)
    assert "nan" not in scatter.draw("n", "t", "a", scatter.Scatter((panel,), ("one",)))


def test_intervals_are_drawn_where_they_are() -> None:
    row = forest.Row("r", (forest.Mark(0, 50.0, 25.0, 75.0, "x"),))
    root = ElementTree.fromstring(
        forest.draw("n", "t", "a", forest.Forest((forest.Panel("p", (row,)),), ("one",), "axis"))
    )
    ends = [(float(e.get("x1") or 0), float(e.get("x2") or 0)) for e in root.iter("line") if e.get("class") == "err s0"]
    middle = next(float(e.get("cx") or 0) for e in root.iter("circle") if "mark" in (e.get("class") or ""))
    low, high = ends[0]
    assert math.isclose((low + high) / 2, middle, abs_tol=0.2)
    assert high - low > 100


# -- files --------------------------------------------------------------------------------------------------------


def test_a_report_is_written_and_compared(files: dict[str, bytes], tmp_path: Path) -> None:
    assert not holds_report(tmp_path)
    write_report(tmp_path, files)
    assert holds_report(tmp_path)
    compare_report(tmp_path, files)
    assert campaigns_of(tmp_path) == ["paper"], "the study"
    write_report(tmp_path, report_files(replace(everything(), study=None)))
    assert campaigns_of(tmp_path) == ["20261128T040000Z-paper-00000a"]


def test_every_file_that_differs_is_named(files: dict[str, bytes], tmp_path: Path) -> None:
    write_report(tmp_path, files)
    (tmp_path / PAGE).write_bytes(files[PAGE][:100] + b"#" + files[PAGE][101:])
    (tmp_path / "tables/energy.csv").unlink()
    (tmp_path / "tables/another.csv").write_text("x")
    with pytest.raises(ReportDiffers) as caught:
        compare_report(tmp_path, files)
    assert "index.html differs from byte 100 on" in caught.value.message
    assert "tables/energy.csv is missing" in caught.value.message
    assert "tables/another.csv is not of this report" in caught.value.message


def test_tables_of_an_earlier_report_go_and_nothing_else(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "keep.csv").write_text("mine")
    (tmp_path / "tables").mkdir()
    for name in ("old.csv", "mine.csv"):
        (tmp_path / "tables" / name).write_text("x")
    index = {
        "campaigns": [],
        "files": {"tables/old.csv": "", "../keep.csv": "", "keep.csv": "", "tables/../keep.csv": ""},
    }
    (tmp_path / INDEX).write_text(json.dumps(index))
    write_report(tmp_path, files)
    assert (tmp_path / "keep.csv").read_text() == "mine"
    assert not (tmp_path / "tables/old.csv").exists()
    assert (tmp_path / "tables/mine.csv").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"campaigns": 1}', '{"campaigns": [1]}', "\xff"])
def test_a_damaged_index_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=INDEX):
        campaigns_of(tmp_path)


@pytest.mark.slow
def test_the_same_cell_of_two_campaigns_is_two_lines() -> None:
    made = everything()
    again = [replace(one, campaign="x-second") for one in made.results.cells]
    twice = content([*made.results.cells, *again])
    for part in sections(twice):
        for figure in part.figures:
            if figure.name in ("sustained", "power-modes", "accuracy"):
                texts = [one.text or "" for one in ElementTree.fromstring(str(figure.svg)).iter("text")]
                assert any("campaign 1" in text for text in texts), figure.name
                assert any("campaign 2" in text for text in texts), figure.name


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_labels_stand_beside_their_rows_or_above_them(width: float) -> None:
    row = forest.Row("r", (forest.Mark(0, 50.0, 25.0, 75.0, "x"),), "synthetic")
    plot = forest.Forest((forest.Panel("p", (row, row)),), ("one",), "axis", top=(2.0, "mWh"))
    root = ElementTree.fromstring(forest.draw("n", "t", "a", plot, width))
    label = next(one for one in root.iter("text") if one.text == "r")
    mark = next(one for one in root.iter("circle") if "mark" in (one.get("class") or ""))
    line = next(one for one in root.iter("line") if one.get("class") == "err s0")
    lower = float(mark.get("cy") or 0) - float(label.get("y") or 0)
    if width == WIDE:
        assert abs(lower) < 6
        assert float(line.get("x1") or 0) > 4 + width_of("r")
    else:
        assert 6 < lower < 30


def test_every_point_of_a_crowd_has_its_label() -> None:
    dots = tuple(scatter.Dot(1.0 + i / 1000, 1.0 + i / 1000, label=f"model-{i} q4_0") for i in range(10))
    panel = scatter.Plot("p", "x", "y", (scatter.Dots(0, dots),))
    far = scatter.Dot(2.0, 2.0)
    panel = replace(panel, series=(scatter.Dots(0, (*dots, far)),))
    root = ElementTree.fromstring(scatter.draw("n", "t", "a", scatter.Scatter((panel,), ("one",))))
    labels = [one.text or "" for one in root.iter("text") if "point-label" in (one.get("class") or "")]
    assert sorted(labels) == sorted(dot.label for dot in dots)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_in_a_crowd_without_room_numbers_tell_points_apart(width: float) -> None:
    """Each name stands once, beside its point or below with the number that is at the point."""
    dots = tuple(scatter.Dot(1.0, 1.0 + i / 1000, label=f"a-model-with-a-long-name-{i} q4_0") for i in range(40))
    panel = scatter.Plot("p", "x", "y", (scatter.Dots(0, dots),), numbered=True)
    root = ElementTree.fromstring(scatter.draw("n", "t", "a", scatter.Scatter((panel,), ("one",)), width))
    texts = list(root.iter("text"))
    at = [one.text or "" for one in texts if "point-label" in (one.get("class") or "")]
    below = dict(re.findall(r"^(\d+) = (.+)$", "\n".join(one.text or "" for one in texts), re.MULTILINE))
    assert sorted([one for one in at if one not in below] + list(below.values())) == sorted(dot.label for dot in dots)
    assert below.keys() <= set(at)
    assert below
    assert all(0 <= float(one.get("y") or 0) <= float((root.get("viewBox") or "").split()[3]) for one in texts)


def test_legends_and_headings_are_wrapped_and_not_cut() -> None:
    name = "stablelm-zephyr-3b q4_0, a workload with a long name, llama.cpp 2024-02-27, synthetic"
    panel = scatter.Plot(name, "x", "y", (scatter.Dots(0, (scatter.Dot(1.0, 2.0),)),))
    root = ElementTree.fromstring(scatter.draw("n", "t", "a", scatter.Scatter((panel,), (name,)), NARROW))
    texts = " ".join(one.text or "" for one in root.iter("text"))
    assert texts.count(name) == 2
    assert all(width_of(one.text or "") <= NARROW for one in root.iter("text"))
