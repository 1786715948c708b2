"""All engines of `specs/engines.yaml` on one scheme, for real: measured, scored, and side by side in the report."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable

import pytest

from meltrepro.manifest.loader import load_manifest
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.integration

SPEC = ROOT / "specs" / "engines.yaml"
SET = ("protocol.repetitions=1", "targets.host.threads=1", "measure.limits.cpu_pressure=1")
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def table(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rows]:
    """A table of the report by its name."""
    folder = tmp_path_factory.mktemp("engines")
    shutil.copytree(ROOT / "specs", folder / "specs")
    home = folder / "home"
    overrides = [part for one in SET for part in ("--set", one)]
    spec = folder / "specs" / SPEC.name
    done = meltrepro(
        "run",
        spec,
        "--only",
        "*/q8_0/*/host/*",
        "--no-track",
        *overrides,
        home=home,
        MELTREPRO_LOCKS=str(home / "locks"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done = meltrepro("report", "last", "--no-track", "-o", folder / "report", home=home)
    assert done.returncode == 0, done.stdout + done.stderr

    def rows(name: str) -> Rows:
        with (folder / "report" / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return rows


def test_every_engine_that_offers_the_scheme_is_in_the_table(table: Callable[[str], Rows]) -> None:
    found = table("engines")
    kinds = {one.kind or name for name, one in load_manifest(SPEC).manifest.frameworks.items()}
    lacking = {row["framework"] for row in table("cells") if "does not offer" in row["reason"]}
    assert {row["framework"] for row in found} == kinds - lacking
    assert all(float(row["generation_tps"]) > 0 and float(row["load_s"]) > 0 for row in found)


def test_the_same_codes_are_about_as_good_under_every_engine(table: Callable[[str], Rows]) -> None:
    """Perplexity of the same text by the same rules; engines round differently where they multiply by codes."""
    scores = [float(row["quality"]) for row in table("engines")]
    assert max(scores) < 1.05 * min(scores)


def test_tokenizers_agree_and_answers_begin_alike(table: Callable[[str], Rows]) -> None:
    found = table("engine-tokens")
    assert len(found) == len(table("engines")) - 1
    for row in found:
        assert row["prompt_tokens"] == "the same"
        assert int(row["tokens_equal"]) > 0
