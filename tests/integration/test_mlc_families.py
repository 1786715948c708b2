"""A tiny model of every family by MLC and by llama.cpp, for real: 32-bit floats give the same greedy tokens, and a wrong switch others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.frameworks.mlc import compiler, convert
from meltrepro.frameworks.prebuilt.families import FAMILIES
from tests.integration import prebuilt
from tests.integration.bundles import Bundle
from tests.integration.prebuilt import Engines
from tests.integration.runner.contract import Runner
from tests.support import families

pytestmark = pytest.mark.integration
TEXT = "the old house by the water was large and white"
COUNT = 24
"""Of tokens. llama.cpp looks GELU up in a table of 16-bit floats, so that Gemma's answers part where two tokens are nearly as likely."""
WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gemma", {"gelu": False}),
    ("gemma", {"embedding_scale": 1.0}),
    ("qwen3", {"neighbours": True}),
)


@dataclass(frozen=True)
class Both:
    """The two engines, and what compiles."""

    engines: Engines
    folder: Path

    def ours(
        self, name: str, kind: str = "F32", *, family: dict[str, Any] | None = None, facts: dict[str, Any] | None = None
    ) -> list[int]:
        """Tokens of a model that is converted and compiled here, maybe wrongly."""
        source, weights, model = (self.folder / each for each in ("source.gguf", "weights", "model"))
        source.write_bytes(families.model(families.MODELS[name], kind))
        architecture = families.MODELS[name].architecture
        with pytest.MonkeyPatch.context() as patch:
            wrong = {**FAMILIES, architecture: replace(FAMILIES[architecture], **(family or {}))}
            patch.setattr(convert, "FAMILIES", wrong)
            convert.convert(source, weights)
        described = json.loads((weights / "model.json").read_text())
        (weights / "model.json").write_text(json.dumps({**described, **(facts or {})}))
        found = next(name for name in self.engines.artifacts if name.startswith("mlc/run/"))
        level = found.rpartition("/")[2]
        command = compiler.step(next(each.variant for each in compiler.TARGETS if each.level == level)).command
        bundle = next(path for name, path in self.engines.artifacts.items() if name.startswith("mlc/compile/"))
        places = {"/bundle": str(bundle), "/source": str(weights), "/out/model": str(model)}
        done = subprocess.run([_placed(str(each), places) for each in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return self._tokens(self.engines.artifacts[found], model)

    def theirs(self, name: str, kind: str = "F32") -> list[int]:
        """Tokens of floats that have the values of codes: llama.cpp would round what it multiplies codes with."""
        source = self.folder / "theirs.gguf"
        source.write_bytes(families.model(families.MODELS[name], kind, widened=True))
        bundle = next(path for name, path in self.engines.artifacts.items() if name.startswith("llama.cpp/run/"))
        return self._tokens(bundle, source)

    def _tokens(self, bundle: Path, model: Path) -> list[int]:
        runner = Runner(Bundle(bundle), model, self.folder)
        return [*runner(max_tokens=COUNT, ignore_eos=True, context=128, conversations=[[TEXT]]).turn.token_ids]


def _placed(word: str, places: dict[str, str]) -> str:
    """A word of a command, with the folders of this machine for those of the sandbox."""
    found = next((each for each in places if word == each or word.startswith(f"{each}/")), None)
    return word if found is None else places[found] + word[len(found) :]


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture
def both(engines: Engines, tmp_path: Path) -> Both:
    return Both(engines, tmp_path)


def varied(tokens: Sequence[int]) -> bool:
    """Whether they tell anything: a model that repeats itself agrees by chance."""
    return len({*tokens}) > COUNT // 3


@pytest.mark.parametrize("name", families.MODELS)
def test_the_same_floats_give_the_same_tokens(both: Both, name: str) -> None:
    tokens = both.theirs(name)
    assert varied(tokens)
    assert both.ours(name) == tokens


@pytest.mark.parametrize(("name", "kind"), [("qwen3", "Q8_0"), ("gemma", "Q4_0"), ("stablelm", "Q4_0")])
def test_codes_give_the_tokens_of_their_values(both: Both, name: str, kind: str) -> None:
    tokens = both.theirs(name, kind)
    assert varied(tokens)
    assert both.ours(name, kind) == tokens


@pytest.mark.parametrize(("name", "wrong"), WRONG, ids=[f"{name}-{next(iter(wrong))}" for name, wrong in WRONG])
def test_a_wrong_switch_is_noticed(both: Both, name: str, wrong: dict[str, Any]) -> None:
    family, facts = (wrong, None) if "neighbours" in wrong else (None, wrong)
    assert both.ours(name, family=family, facts=facts) != both.theirs(name)
