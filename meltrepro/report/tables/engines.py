"""Engines side by side: what each made of the same model, what makes that unfair, and whether they answer alike."""

from __future__ import annotations

from meltrepro.report.cells import Field, metric, none_since, software, table, tags
from meltrepro.report.engines import Pair, Parting, TokenCheck, groups, pairs, prompts, token_checks
from meltrepro.report.fairness import RULES, unfair
from meltrepro.report.results import CellResult, Results
from meltrepro.report.tradeoffs import axes
from meltrepro.report.values import Absent, Column, Table, Tags, Value, Word, named
from meltrepro.stats.summary import TOO_FEW

_ALONE = "no model was measured with two engines on one device"
_WHO = (*named("device", "model", "workload"), Column("tags", "tags", "tags"))
_OF_FIGURES = ("invalid", TOO_FEW)
"""Tags that say nothing of how engines work or what they answer."""
_PAIR = (Column("engine", "engine"), Column("reference", "against", below="engine"))


def engines(results: Results) -> Table:
    """Every cell of a model that several engines were measured with, scheme by scheme."""
    quality = next((axis for axis in axes(results) if axis.key == "quality"), None)

    def bits(cell: CellResult) -> Value:
        found = cell.bits_per_weight
        return Absent("the record does not say how many weights there are") if found is None else found

    def scored(cell: CellResult) -> Value:
        found = quality.of(cell) if quality else None
        return Absent("these weights were not scored") if found is None else found[0]

    fields: tuple[Field, ...] = (
        (Column("bits_per_weight", "bits a weight", "known"), bits),
        metric("prefill_tps", "prefill (tokens/s)"),
        metric("generation_tps", "generation (tokens/s)"),
        metric("load_s", "load (s)"),
        metric("peak_memory_bytes", "peak memory (GB)", key="peak_memory_gb", scale=1e-9),
        metric("energy_per_token_j", "generation (J/token)"),
        (Column("quality", quality.title if quality else "quality", "number"), scored),
    )
    note = (
        "Bits a weight: 8 x size of what is loaded / number of weights; of a model that is a folder, of all its files."
    )
    cells = [cell for group in groups(results) for cell in group]
    return table(results, "engines", "Engines", cells, fields, why=none_since(_ALONE, results), note=note)


def warnings(results: Results) -> Table:
    """What is not alike in a comparison, for each pair of engines that it concerns."""
    columns = (
        *_WHO,
        *_PAIR,
        *(Column("warning", "not alike"), Column("meaning", "what", "prose")),
        Column("quantizations", "quantizations"),
    )
    found = list(pairs(results))
    said: dict[tuple[Value, ...], dict[str, dict[str, list[str]]]] = {}
    for pair in found:
        rules = said.setdefault(_who(results, pair), {name: {} for name in RULES})
        for name, meaning in unfair(pair.cell, pair.reference):
            rules[name].setdefault(meaning, []).append(pair.cell.quantization)
    rows = tuple(
        (*who, name, meaning, ", ".join(dict.fromkeys(schemes)))
        for who, rules in said.items()
        for name, meanings in rules.items()
        for meaning, schemes in meanings.items()
    )
    name, title = "engine-warnings", "Where the comparison is unfair"
    if found:
        why = None if rows else "of all that records tell, nothing differs but the engine"
        return Table(name, title, columns, rows, reason=why, gap="NOTHING")
    return Table(name, title, columns, (), reason=_why_no_pair(results))


def tokens(results: Results) -> Table:
    """Whether engines with the same weights give the same greedy answers, and where they part."""
    columns = (
        *(_WHO[0], _WHO[1], Column("quantization", "quantization"), *_WHO[2:]),
        *_PAIR,
        *(Column("prompt_tokens", "tokens of prompts"), Column("answers_equal", "equal answers", "number")),
        *(Column("answers", "of", below="answers_equal"), Column("tokens_equal", "equal tokens", "number")),
        *(Column("tokens", "of", below="tokens_equal"), Column("first_difference", "first difference", "prose")),
        *(
            Column("text", "here", below="first_difference"),
            Column("reference_text", "there", below="first_difference"),
            Column("margin", "margin here", "number"),
            Column("reference_margin", "there", "number", below="margin"),
        ),
    )
    checks = token_checks(results)
    note = (
        "Answers are those of the first repetition; what follows a first difference in a conversation follows another text and is not"
        " compared. Engines round differently where they multiply by codes, so that answers part where two tokens are nearly as"
        " likely: a margin is by how much the logit of the token exceeds the next largest of the same engine."
    )
    if checks:
        return Table(
            "engine-tokens", "The same tokens?", columns, tuple(_check(results, one) for one in checks), (note,)
        )
    why = "no two engines answered greedily with the same weights" if groups(results) else _why_no_pair(results)
    return Table("engine-tokens", "The same tokens?", columns, (), reason=why)


def _why_no_pair(results: Results) -> str:
    if groups(results):
        return "no quantization was measured with two engines"
    return none_since(_ALONE, results)


def _who(results: Results, pair: Pair) -> tuple[Value, ...]:
    cell = pair.cell
    told = tuple(tag for tag in tags(cell) if tag not in _OF_FIGURES)
    where = (results.title(cell.device), cell.model, cell.workload, Tags(told))
    return (*where, software(cell), software(pair.reference))


def _check(results: Results, check: TokenCheck) -> tuple[Value, ...]:
    device, model, *rest = _who(results, check.pair)
    alike: Value = Word("the same", "good") if check.same_prompts else Word(_prompts(check.pair), "bad")
    texts: tuple[Value, Value] = check.parting.texts if check.parting else (None, None)
    margins: tuple[Value, ...] = check.parting.margins if check.parting else (None, None)
    return (
        *(device, model, check.pair.cell.quantization, *rest, alike),
        *(check.equal_answers, check.answers, check.equal_tokens, check.tokens),
        *(_where(check.parting) if check.parting else Word("none", "good"), *texts, *margins),
    )


def _prompts(pair: Pair) -> str:
    ours, theirs = (", ".join(map(str, prompts(one).values())) for one in (pair.cell, pair.reference))
    return f"{ours} against {theirs}"


def _where(parting: Parting) -> str:
    ours, theirs = ("the end" if id is None else str(id) for id in parting.ids)
    place = f"conversation {parting.conversation}, answer {parting.turn}, token {parting.token}"
    return f"{place}: {ours} against {theirs}"
