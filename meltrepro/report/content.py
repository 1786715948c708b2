"""Campaign folders to everything that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meltrepro.measure.records import CampaignRecord
from meltrepro.record.campaign import CampaignDocument
from meltrepro.record.study import StudyDocument
from meltrepro.report.read import read_results
from meltrepro.report.results import Results
from meltrepro.report.values import Section
from meltrepro.studies.base import studies_of


@dataclass(frozen=True)
class Content:
    """Everything that a report shows."""

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
