"""Campaign folders, findings and the paper's figures to the content of a report."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from meltrepro.measure.records import CampaignRecord
from meltrepro.record.study import StudyDocument
from meltrepro.report.content import CellProvenance, Content, Provenance, Reference
from meltrepro.report.read import read_results
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings.registry import evaluate


def assemble(campaigns: Sequence[CampaignRecord], study: StudyDocument | None = None) -> Content:
    """Everything that a report shows, from records alone; raises `RecordError` where one is damaged."""
    results = read_results(campaigns)
    return Content(results, evaluate(results), tuple(references()), tuple(map(_provenance, campaigns)), study)


def _provenance(campaign: CampaignRecord) -> Provenance:
    document = campaign.document
    started = datetime.datetime.fromtimestamp(document.started_wall_ns // 10**9, datetime.UTC)
    return Provenance(
        campaign=document.id,
        name=document.name,
        started=started.strftime("%Y-%m-%d %H:%M:%S"),
        version=document.meltrepro_version,
        engine=document.engine,
        seed=document.seed,
        order=document.order,
        manifest_digest=document.manifest_digest,
        plan_digest=document.plan_digest,
        cells=tuple(
            CellProvenance(
                cell=entry.id,
                release=entry.release,
                commit=entry.commit,
                isa=entry.isa,
                model=entry.model_digest,
                bundle=entry.bundle_digest,
                runner=entry.runner_digest,
                source=entry.source_digest,
            )
            for entry in document.cells
        ),
    )


def references() -> Iterator[Reference]:
    """The paper's figures, as far as they were recovered; raises `RecordError` where the package is damaged."""
    for size in paper.sizes():
        who = ("sizes", "", size.framework, size.model, size.quantization)
        for metric, value in (("on disk", size.disk_gb), ("in memory", size.published_memory_gb)):
            yield Reference(*who, metric, value, "GB", size.source, flags=size.flags)
    for score in paper.accuracy():
        yield Reference(
            *("accuracy", "", score.framework, score.model, score.quantization, score.task, score.value, "share"),
            *(score.source, score.stderr, score.flags),
        )
    for table, rows in (("speed", paper.throughput()), ("energy", paper.energy())):
        for row in rows:
            yield Reference(
                *(table, row.device, row.framework, row.model, row.quantization, row.metric, row.value, row.unit),
                source=row.source,
                secondhand=row.secondhand,
            )
    for operator in paper.operators():
        what = f"{operator.module}: {operator.role or operator.name}"
        shares = {"as plotted": operator.plotted_share, "of time": operator.time_share}
        for share, figure in shares.items():
            if figure:
                yield Reference(
                    *("operators", operator.device, operator.framework, operator.model, operator.quantization),
                    *(f"{what}: {share}", figure, "share", operator.source),
                )
