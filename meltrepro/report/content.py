"""Campaign folders to everything that a report shows, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from meltrepro.measure.records import CampaignRecord
from meltrepro.record.campaign import CampaignDocument
from meltrepro.record.study import StudyDocument
from meltrepro.report.figures import engines as engine_figures
from meltrepro.report.figures import points, rows
from meltrepro.report.figures import sizes as size_figures
from meltrepro.report.read import read_results
from meltrepro.report.results import Results
from meltrepro.report.tables import engines, measurements, overview, paired, sizes
from meltrepro.report.tradeoffs import tradeoffs
from meltrepro.report.values import Figure, Section, Table
from meltrepro.studies.base import studies_of


@dataclass(frozen=True)
class Content:
    results: Results
    campaigns: Sequence[CampaignDocument] = ()
    claims: Sequence[Section] = ()
    """What the studies that campaigns belong to say of the results."""
    study: StudyDocument | None = None
    """The manifests that were run together, with what had to be left out."""


def assemble(campaigns: Sequence[CampaignRecord], study: StudyDocument | None = None) -> Content:
    """From records alone; raises `RecordError` where one is damaged."""
    results = read_results(campaigns)
    claims = [section for one, own in studies_of(results) for section in one.sections(own)]
    return Content(results, [campaign.document for campaign in campaigns], claims, study)


def sections(content: Content) -> tuple[Section, ...]:
    """Every section, whatever the results, in the order of a reader's questions: what was measured, is it valid, how fast, at
    what cost, how good, how does it compare, how to repeat it. Those of results without any say why, and stand after the others."""
    results, campaigns = content.results, content.campaigns
    ran = Section(
        "overview",
        "What was measured",
        "Campaigns, devices, and what the manifests set.",
        (),
        (
            *(overview.campaigns(results, campaigns), *overview.left_out(content.study)),
            *(overview.devices(results), overview.options(results)),
        ),
    )
    valid = Section(
        "validity",
        "Is it valid?",
        f"What became of every cell. What could not be run is a result too: its reason stands here. {overview.limits(results)}",
        (),
        (overview.coverage(results), overview.cells(results)),
    )
    origin = Section(
        "provenance",
        "How to check and repeat it",
        "Where every figure comes from, what it means, and the commands that make it again.",
        (),
        (overview.how_run(campaigns), overview.digests(campaigns), overview.ran_as(results), overview.definitions()),
    )
    found = [
        Section(id, title, lead, tuple(draw(results) for draw in figures), tuple(make(results) for make in tables))
        for id, title, lead, figures, tables in _RESULTS
    ]
    measured, missing = ([part for part in found if bool(part.tables[0].rows) is having] for having in (True, False))
    return (ran, valid, *measured, *content.claims, *missing, origin)


_RESULTS: tuple[
    tuple[str, str, str, tuple[Callable[[Results], Figure], ...], tuple[Callable[[Results], Table], ...]],
    ...,
] = (
    (
        "throughput",
        "How fast: throughput",
        "Tokens per second of reading prompts (prefill) and of writing answers (generation).",
        (partial(rows.throughput, phase="generation"), partial(rows.throughput, phase="prefill")),
        (measurements.throughput,),
    ),
    (
        "phases",
        "How fast: prefill against generation",
        "Reading works on many tokens at once and is bound by arithmetic; writing reads all weights for each token and is bound by memory.",
        (points.phases,),
        (measurements.phases,),
    ),
    (
        "sustained",
        "How fast: sustained load",
        "Prompt after prompt without pause.",
        (points.sustained_curves,),
        (measurements.sustained_speed,),
    ),
    (
        "operators",
        "How fast: operators",
        "Which operators the decoder spends its time in.",
        (rows.operators,),
        (measurements.operators,),
    ),
    (
        "memory",
        "How much: memory",
        "The most memory that a run held, beside the model file and the KV cache that it cannot do without.",
        (points.memory, rows.memory_ratio),
        (measurements.memory,),
    ),
    ("energy", "How much: energy", "Joules per token, phase by phase.", (rows.energy,), (measurements.energy,)),
    (
        "accuracy",
        "How good: accuracy",
        "What quantization costs in right answers. Synthetic weights are never scored.",
        (points.accuracy,),
        (measurements.accuracy, paired.quantizations),
    ),
    (
        "tradeoffs",
        "Compared: trade-offs",
        "Which cells are worth their memory, energy and loss of quality.",
        (points.tradeoffs,),
        (tradeoffs,),
    ),
    (
        "sizes",
        "Compared: sizes",
        "What a larger model costs in speed, energy, memory and attention, and what models of today have changed.",
        (size_figures.sizes,),
        (sizes.sizes, sizes.then_and_now),
    ),
    (
        "engines",
        "Compared: engines",
        "The same model under several engines. Weights named as f16 or q4_0 are the same numbers in each; other schemes are its own.",
        (engine_figures.speeds,),
        (engines.engines, engines.warnings, engines.tokens),
    ),
    (
        "power-modes",
        "Compared: power modes",
        "The same work within different power budgets.",
        (points.power,),
        (measurements.power_modes,),
    ),
    (
        "drift",
        "Compared: drift of the software",
        "What time gave on the same device: the same models with releases of different age.",
        (rows.drift,),
        (measurements.drift,),
    ),
)
"""Id, title and lead of each section of results, with its figures and its tables; whether it has any result is told by the first of these."""
