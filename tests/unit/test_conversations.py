"""Our own conversations have the lengths of MELT's; the figures are those of its set (github.com/brave-experiments/MELT-public,
commit 15dcd82, src/prompts), counted once; none of its text is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from meltrepro.manifest.prompts import load_conversations
from meltrepro.manifest.schema import Workload

PROMPTS = Path(__file__).parents[2] / "specs" / "prompts"
ALL = load_conversations(Workload(conversations="conversations.yaml"), PROMPTS)
FLAT = tuple(chain.from_iterable(ALL))
FIRST = tuple(chain.from_iterable(load_conversations(Workload(conversations="conversations.yaml", first=5), PROMPTS)))
SUSTAINED = tuple(
    chain.from_iterable(load_conversations(Workload(conversations="conversations.yaml", prompts=48), PROMPTS))
)
NAMES = ("mean", "sd", "min", "p5", "p25", "p50", "p75", "p90", "p95", "max")
# Allowed difference as a share: English of ours has somewhat shorter words, so that characters and words cannot both fit
# exactly; characters are kept closer.
ALLOWED = {
    "characters": dict(zip(NAMES, (0.03, 0.06, 0, 0.12, 0.03, 0.03, 0.05, 0.05, 0.05, 0.04), strict=True)),
    "words": dict(zip(NAMES, (0.08, 0.08, 0, 0.06, 0.11, 0.08, 0.08, 0.05, 0.12, 0.08), strict=True)),
}
COUNT: dict[str, Callable[[str], int]] = {"characters": len, "words": lambda prompt: len(prompt.split())}
MELT = {
    ("all", "characters"): (139.7, 177.67, 6, 26, 54, 85, 157.75, 279.7, 395.05, 1415),
    ("all", "words"): (25.13, 30.67, 1, 5, 10, 16, 27, 52.7, 66.7, 241),
    ("conversations", "characters"): (1128.76, 486.34, 414, 584.8, 742.75, 1071, 1284, 1822.8, 2231.9, 2597),
    ("conversations", "words"): (203.04, 84.15, 77, 109.45, 142.5, 186, 231.75, 337.4, 387.5, 437),
    ("first five", "characters"): (115.71, 111.12, 6, 26, 57.25, 89.5, 129.5, 191, 246.9, 628),
    ("first five", "words"): (21.76, 21.25, 1, 5.3, 10, 16, 25, 38, 46.2, 121),
    ("sustained", "characters"): (103.29, 96.53, 6, 26.35, 56, 76.5, 122.25, 189.6, 201.4, 628),
    ("sustained", "words"): (19.38, 18.46, 1, 6, 10, 14, 22.25, 36.6, 40.6, 121),
}


def lengths(subset: str, unit: str) -> list[int]:
    count = COUNT[unit]
    if subset == "conversations":
        return [sum(map(count, turns)) for turns in ALL]
    return [count(prompt) for prompt in {"all": FLAT, "first five": FIRST, "sustained": SUSTAINED}[subset]]


def test_as_many_conversations_and_turns() -> None:
    assert Counter(map(len, ALL)) == {6: 11, 7: 7, 8: 10, 9: 11, 10: 11}
    assert [len(turns) for turns in ALL[:5]] == [6, 10, 6, 6, 6]
    assert (len(FLAT), len(FIRST), len(SUSTAINED)) == (404, 34, 48)
    assert FLAT[:48] == SUSTAINED, "MELT's sustained set begins its macro set"
    assert len(set(FLAT)) == len(FLAT)


def test_line_breaks_and_letters_outside_ascii() -> None:
    assert sum("\n" in prompt for prompt in FLAT) == 32
    assert sum(not prompt.isascii() for prompt in FLAT) == 8
    assert all(prompt == prompt.strip() for prompt in FLAT)


@pytest.mark.parametrize(("subset", "unit"), MELT)
def test_lengths(subset: str, unit: str) -> None:
    values = np.array(lengths(subset, unit))
    found = (
        values.mean(),
        values.std(),
        values.min(),
        *np.percentile(values, [5, 25, 50, 75, 90, 95]),
        values.max(),
    )
    wrong = {
        name: (float(have), want)
        for name, have, want in zip(NAMES, found, MELT[subset, unit], strict=True)
        if abs(have - want) > ALLOWED[unit][name] * want + 1e-9
    }
    assert not wrong, "(found, MELT's) by statistic"
