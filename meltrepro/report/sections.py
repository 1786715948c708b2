"""The report from beginning to end: which figures and tables stand together, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from meltrepro.report.content import Content
from meltrepro.report.figures import resources as resource_figures
from meltrepro.report.figures import speed as speed_figures
from meltrepro.report.figures import work as work_figures
from meltrepro.report.figures.figure import Figure
from meltrepro.report.tables import overview, provenance, resources, speed, work
from meltrepro.report.values import Table
from meltrepro.studies.melt import findings_table as findings
from meltrepro.studies.melt import tables as paper


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    id: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]


def sections(content: Content) -> tuple[Section, ...]:
    """Every section, whatever the results: what they lack is said in its place."""
    return (
        Section(
            "overview",
            "What was run",
            "Campaigns, devices, and what became of every cell. What could not be run is a result too: its reason stands here.",
            (),
            (
                *(overview.campaigns(content), *overview.left_out(content), overview.devices(content)),
                *(overview.coverage(content), overview.cells(content)),
            ),
        ),
        Section(
            "findings",
            "Findings",
            "The paper's claims, each as a test on these results. Where the results cannot decide, they say why.",
            (),
            (findings.findings(content),),
        ),
        Section(
            "throughput",
            "Throughput",
            "Tokens per second of reading prompts (prefill) and of writing answers (generation).",
            (speed_figures.throughput(content, "generation"), speed_figures.throughput(content, "prefill")),
            (speed.throughput(content),),
        ),
        Section(
            "phases",
            "Prefill against generation",
            "Reading works on many tokens at once and is bound by arithmetic; writing reads all weights for each token and is bound by memory.",
            (speed_figures.phases(content),),
            (speed.phases(content),),
        ),
        Section(
            "memory",
            "Memory",
            "The most memory that a run held, beside the model file and the KV cache that it cannot do without.",
            (resource_figures.memory(content), resource_figures.memory_ratio(content)),
            (resources.memory(content),),
        ),
        Section(
            "energy",
            "Energy",
            "Joules per token, phase by phase.",
            (resource_figures.energy(content),),
            (resources.energy(content),),
        ),
        Section(
            "sustained",
            "Sustained load",
            "Prompt after prompt without pause.",
            (speed_figures.sustained_curves(content),),
            (speed.sustained_speed(content),),
        ),
        Section(
            "operators",
            "Operators",
            "Which operators the decoder spends its time in.",
            (work_figures.operators(content),),
            (work.operators(content),),
        ),
        Section(
            "accuracy",
            "Accuracy",
            "What quantization costs in right answers. Synthetic weights are never scored.",
            (work_figures.accuracy(content),),
            (work.accuracy(content),),
        ),
        Section(
            "power-modes",
            "Power modes",
            "The same work within different power budgets.",
            (resource_figures.power(content),),
            (resources.power_modes(content),),
        ),
        Section(
            "drift",
            "Drift of the software",
            "What time gave on the same device: the same models with releases of different age.",
            (speed_figures.drift(content),),
            (speed.drift(content),),
        ),
        Section(
            "paper",
            "The paper's figures",
            "What was recovered of MELT's figures (MobiCom'24, arXiv 2403.12844), beside ours where there is a counterpart. Remarks say what is wrong with a published row.",
            (),
            (paper.sizes(content), paper.scores(content), paper.devices(content), paper.operators(content)),
        ),
        Section(
            "provenance",
            "Provenance",
            "Where every figure comes from, what it means, and how to check it.",
            (),
            (provenance.campaigns(content), provenance.digests(content), provenance.definitions(content)),
        ),
    )
