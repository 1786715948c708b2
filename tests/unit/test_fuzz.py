"""Whatever a stranger writes is a value or one error in words: every kind of input, changed at random (tests/fuzz)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.kinds import attempt, kinds
from tests.fuzz.mutate import mutate
from tests.support.examples import examples

EXAMPLES = examples(25)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_sample_is_read(name: str, tmp_path: Path) -> None:
    """Else nothing that is made of it reaches what lies behind the first check."""
    kind = kinds()[name]
    read = [attempt(kind, sample, tmp_path) for sample in kind.samples()]
    assert any(read)


@pytest.mark.parametrize("name", sorted(kinds()))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_changed_is_read_or_refused(name: str, tmp_path: Path, seed: int) -> None:
    rng, kind = random.Random(seed), kinds()[name]
    attempt(kind, mutate(rng.choice(list(kind.samples())), kind.form, rng), tmp_path)


LONG = b"9" * 5000


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("device-words", b'{"exit": 1e999, "timed_out": false, "out_of_memory": false}'),
        ("device-words", b'{"exit": Infinity, "timed_out": false, "out_of_memory": false}'),
        ("device-words", b"[" * 100_000),
        *(
            (kind, next(iter(kinds()[kind].samples())).replace(b"\n8\n1000000 4096", b"\n" + words))
            for kind in ("device-android", "device-linux", "device-jetson")
            for words in ("²\n1 4096".encode(), "8\n1 ²".encode(), b"8\n" + LONG + b" 1", "٣\n1 1".encode())
        ),
        ("device-linux", next(iter(kinds()["device-linux"].samples())).replace(b"=max 100000", "=² 100000".encode())),
        ("scores", b"[" + LONG + b"]5.1,[2]6.0001,\nFinal estimate: PPL = 6.0001 +/- 0.1\n"),
        ("scores", LONG + b"\t100.0\n"),
        ("scores", b"1\t100.0\nFinal Winogrande score(" + LONG + b" tasks): 50.0 +/- 1\n"),
        ("environment", b"\n" * 24 + b"a/" * 3000),
        ("meter", b"\0t,P\n" + b"9" * 500_000 + b"x,1\n2,1\n3,1\n"),
        ("meter", b"\0t,P\n1," + b"9" * 500_000 + b"x\n2,1\n3,1\n"),
        ("pattern", b"*a" * 50_000 + b"\n" + b"a" * 4000),
        ("pattern", b"*a" * 500 + b"\n" + b"a" * 4000),
        ("ssh", b"port \xc2\xb2\n"),
        ("ssh", b'knownhostscommand /bin/cat "a\n'),
        ("ssh", b"userknownhostsfile ~nobody-at-all/x " + LONG),
        ("web", b"302\nLocation: http://\xd4\xd4/\n\n"),
    ],
)
def test_what_was_found_once(name: str, data: bytes, tmp_path: Path) -> None:
    """Each of these crashed, or was not done in a minute."""
    attempt(kinds()[name], data, tmp_path)
