"""The runner's sampler against the definition in docs/runner.md, written down once more in Python."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro import resources
from meltrepro.record.trial import RequestSampling

pytestmark = pytest.mark.machine
Sample = Callable[[RequestSampling, Sequence[int], Sequence[int], Sequence[float], int], list[int]]
GREEDY = RequestSampling(greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=0)


def pcg32(seed: int) -> Iterator[int]:
    """Melissa O'Neill's pcg_xsh_rr_64_32 on stream 54."""
    mask, increment = 2**64 - 1, 2 * 54 + 1

    def advance(state: int) -> int:
        return (state * 6364136223846793005 + increment) & mask

    state = advance((advance(0) + seed) & mask)
    while True:
        shifted, rotation = ((state >> 18) ^ state) >> 27 & 0xFFFFFFFF, state >> 59
        yield (shifted >> rotation | shifted << (-rotation & 31)) & 0xFFFFFFFF
        state = advance(state)


def reference(
    sampling: RequestSampling, banned: Sequence[int], history: Sequence[int], logits: Sequence[float], draws: int
) -> list[int]:
    """The definition, as plainly as it can be said."""
    numbers, seen = pcg32(sampling.seed), list(history)
    for _ in range(draws):
        values = dict(enumerate(logits))
        if not sampling.greedy:
            for token in set(seen[len(seen) - min(len(seen), sampling.repeat_last_n) :]):
                value, penalty = values[token], sampling.repeat_penalty
                values[token] = value / penalty if value > 0 else value * penalty
        order = sorted((token for token in values if token not in banned), key=lambda token: (-values[token], token))
        if sampling.greedy:
            seen.append(order[0])
            continue
        order = order[: sampling.top_k or len(order)]
        weights = [math.exp((values[token] - values[order[0]]) / sampling.temperature) for token in order]
        kept, mass = 0, 0.0
        while kept < len(order) and (kept == 0 or mass < sampling.top_p * sum(weights)):
            mass += weights[kept]
            kept += 1
        rest = next(numbers) / 2**32 * mass
        chosen = 0
        while chosen < kept - 1 and rest >= weights[chosen]:
            rest -= weights[chosen]
            chosen += 1
        seen.append(order[chosen])
    return seen[len(history) :]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path_factory.mktemp("sampler") / "sampler"
    sources = [Path(__file__).parent / "sampler_driver.cpp", resources.runner() / "token_sampler.cpp"]
    options = ["-std=c++17", "-O2", "-Wall", "-iquote", str(resources.runner())]
    subprocess.run([compiler, *options, *map(str, sources), "-o", str(program)], check=True)

    def run(
        sampling: RequestSampling, banned: Sequence[int], history: Sequence[int], logits: Sequence[float], draws: int
    ) -> list[int]:
        head = [int(sampling.greedy), sampling.temperature, sampling.top_k, sampling.top_p]
        head += [sampling.repeat_penalty, sampling.repeat_last_n, sampling.seed]
        numbers = [*head, len(banned), *banned, len(history), *history, len(logits), *logits, draws]
        text = " ".join(map(repr, numbers))
        result = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=True)
        return [int(line) for line in result.stdout.split()]

    return run


def single(value: float) -> float:
    """The nearest single-precision number: what a model's logits are."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


LOGITS = st.lists(st.floats(-30, 30, width=32).map(single), min_size=8, max_size=40)
SAMPLINGS = st.builds(
    RequestSampling,
    greedy=st.booleans(),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.05, 1),
    repeat_penalty=st.floats(0.5, 2),
    repeat_last_n=st.integers(0, 12),
    seed=st.integers(0, 2**63 - 1),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sampling=SAMPLINGS,
    logits=LOGITS,
    history=st.lists(st.integers(0, 7), max_size=16),
    banned=st.lists(st.integers(0, 6), max_size=4),
)
def test_sampler_is_the_documented_one(
    sample: Sample, sampling: RequestSampling, logits: list[float], history: list[int], banned: list[int]
) -> None:
    assert sample(sampling, banned, history, logits, 12) == reference(sampling, banned, history, logits, 12)


def test_the_generator_is_pcg32() -> None:
    """The outputs that its authors publish for seed 42."""
    published = [0xA15C02B7, 0x7B47F409, 0xBA1D3330, 0x83D2F293, 0xBFA4784B, 0xCBED606E]
    assert list(islice(pcg32(42), len(published))) == published


def test_draws_have_the_softmax_distribution(sample: Sample) -> None:
    sampling = GREEDY.model_copy(update={"greedy": False, "temperature": 0.5, "seed": 3})
    logits = [0.0, 0.5, 1.0, -1.0]
    drawn = sample(sampling, [], [], logits, 20_000)
    total = sum(math.exp(value / 0.5) for value in logits)
    for token, value in enumerate(logits):
        expected = math.exp(value / 0.5) / total
        assert abs(drawn.count(token) / 20_000 - expected) < 5 * math.sqrt(expected * (1 - expected) / 20_000)


def test_equal_logits_go_to_the_lowest_id(sample: Sample) -> None:
    assert sample(GREEDY, [], [], [1.0, 2.0, 2.0, 2.0], 1) == [1]
    assert sample(GREEDY, [1], [], [1.0, 2.0, 2.0, 2.0], 1) == [2]
    first_of_two = GREEDY.model_copy(update={"greedy": False, "top_k": 1})
    assert sample(first_of_two, [], [], [1.0, 2.0, 2.0, 2.0], 1) == [1]
