"""Continuous workloads: laid out so that no context overflows, whatever the model, and asked without pauses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from meltrepro.chat.contexts import FIRST_TURN_TOKENS, TURN_TOKENS, lay_out
from meltrepro.chat.render import render
from meltrepro.chat.template import BUILT_IN, ChatTemplate
from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.record.trial import Request
from tests.support.manifests import write
from tests.unit.test_request import requests

SPECS = Path(__file__).parents[2] / "specs"


def loaded(folder: Path, **workload: Any) -> LoadedManifest:
    keys = "".join(f"    {name}: {value}\n" for name, value in workload.items())
    text = (
        "meltrepro: 1\nname: t\nmodels: {m: {source: {file: m}, chat_template: plain, quantizations: [as-is]}}\n"
        "frameworks: {llama.cpp: {release: '2024-02-27'}}\n"
        f"workloads:\n  long:\n    conversations: [[x]]\n    continuous: true\n{keys}"
    )
    return load_manifest(write(folder, text))


def texts(template: ChatTemplate, system: str | None, prompts: list[str]) -> tuple[str, ...]:
    return render(template, system, [prompts]).texts[0]


def test_a_longer_template_gets_more_room(tmp_path: Path) -> None:
    manifest = loaded(tmp_path, context=1024, max_tokens=64)
    long = ChatTemplate("long", "{{ 'x' * 300 }}{% for m in messages %}[{{ m.content }}]{% endfor %}", trusted=True)
    conversations = [["a" * 100] * 6]
    plain, roomy = (lay_out(manifest, "long", conversations, each) for each in ((), [long]))
    assert len(roomy) > len(plain)
    assert [prompt for piece in roomy for prompt in piece] == conversations[0]


def test_what_templates_add_is_within_the_allowance() -> None:
    beside = 2  # the beginning of a text, and a space that some tokenizers put before each piece
    for template in BUILT_IN.values():
        first, second, _ = (len(text.encode()) + beside for text in texts(template, None, ["", "", ""]))
        assert second <= TURN_TOKENS, template.name
        assert first <= TURN_TOKENS + FIRST_TURN_TOKENS, template.name
        own = len(texts(template, "S" * 50, [""])[0].encode()) + beside
        assert own <= TURN_TOKENS + FIRST_TURN_TOKENS + 50, template.name


@pytest.mark.parametrize("seed", range(20))
def test_no_conversation_can_overflow_and_no_prompt_is_lost(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    prompts = ["ä" * draw.randint(1, 300) for _ in range(draw.randint(1, 80))]
    cuts = sorted(draw.sample(range(1, len(prompts) + 1), min(3, len(prompts))))
    conversations = [part for a, b in zip([0, *cuts], [*cuts, None], strict=True) if (part := prompts[a:b])]
    context, max_tokens = 2048, draw.choice([16, 128, 512])
    pieces = lay_out(loaded(tmp_path, context=context, max_tokens=max_tokens), "long", conversations)
    assert [prompt for piece in pieces for prompt in piece] == prompts
    for template in BUILT_IN.values():
        for piece in pieces:
            used = [len(text.encode()) + 2 + max_tokens for text in texts(template, None, piece)]
            assert sum(used) <= context
    sizes = [sum(len(prompt.encode()) + TURN_TOKENS + max_tokens for prompt in piece) for piece in pieces]
    for size, following in zip(sizes, pieces[1:], strict=False):
        more = len(following[0].encode()) + TURN_TOKENS + max_tokens
        assert size + more > context - FIRST_TURN_TOKENS, "an empty context begins only where it must"


def test_a_prompt_that_might_not_fit_is_refused_at_the_context(tmp_path: Path) -> None:
    manifest = loaded(tmp_path, context=512, max_tokens=256)
    assert lay_out(manifest, "long", [["a" * 48]]) == [["a" * 48]]
    with pytest.raises(ManifestError) as caught:
        lay_out(manifest, "long", [["fits"], ["a" * 49]])
    (problem,) = caught.value.problems
    assert problem.field == "workloads.long.context"
    assert "may need 513 tokens, and the context has 512" in problem.message
    with pytest.raises(ManifestError, match="may need 612 tokens"):
        lay_out(loaded(tmp_path, context=512, max_tokens=256, system="s" * 100), "long", [["a" * 48]])


def sustained(folder: Path, **keys: Any) -> Request:
    workload = {
        "conversations": str(SPECS / "prompts" / "conversations.yaml"),
        "prompts": 48,
        "continuous": True,
        "max_tokens": 256,
        **keys,
    }
    made = requests(folder, workload)
    layouts = {tuple(map(len, request.conversations)) for request in made.values()}
    assert len(layouts) == 1, "the same for every chat template"
    return next(iter(made.values()))


def test_the_sustained_workload_asks_48_prompts_without_pause(tmp_path: Path) -> None:
    request = sustained(tmp_path)
    assert sum(map(len, request.conversations)) == 48
    assert max(map(len, request.conversations)) > 3
    assert (request.turn_pause_ms, request.conversation_pause_ms) == (0, 0)
    assert len(sustained(tmp_path, max_tokens=512).conversations) > len(request.conversations)


def test_pauses_of_the_protocol_are_for_other_workloads(tmp_path: Path) -> None:
    paused = {"protocol": {"turn_pause_s": 5, "conversation_pause_s": 60}}
    for continuous, pauses in ((True, (0, 0)), (False, (5000, 60000))):
        made = requests(tmp_path, {"conversations": [["Hi", "Ho"]], "continuous": continuous}, **paused)
        assert {(each.turn_pause_ms, each.conversation_pause_ms) for each in made.values()} == {pauses}


def test_a_prompt_that_breaks_out_is_named_by_its_own_place(tmp_path: Path) -> None:
    conversations = [["fine"] * 9, ["fine", "x<|im_end|>"]]
    with pytest.raises(ManifestError) as caught:
        requests(tmp_path, {"conversations": conversations, "continuous": True, "context": 1024})
    assert "conversation 2, prompt 2" in caught.value.problems[0].message
