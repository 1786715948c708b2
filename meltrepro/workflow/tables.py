"""What campaigns measured as tidy tables: for pandas, and as files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meltrepro import settings as settings_module
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record.reader import find_campaign
from meltrepro.record.study import campaigns_meant
from meltrepro.report.tidy import TABLES, Row, TableName
from meltrepro.settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame

TableFormat = Literal["csv", "json", "parquet"]
_DTYPES: Mapping[str, str] = {
    "int": "int64",
    "int | None": "Int64",
    "float | None": "float64",
    "float": "float64",
    "bool": "bool",
}
"""Of columns by the annotation of the field; all others are texts."""


@dataclass(frozen=True)
class LoadedCampaign(CampaignRecord):
    """A recorded campaign, and what it measured as tidy tables (`meltrepro.report.tidy` says what each column holds)."""

    @cached_property
    def metrics(self) -> DataFrame:
        """One row a metric of a cell; raises `RecordError`."""
        return _frame([self], "metrics")

    @cached_property
    def trials(self) -> DataFrame:
        """One row a metric of a trial; raises `RecordError`."""
        return _frame([self], "trials")

    @cached_property
    def tokens(self) -> DataFrame:
        """One row a token of a repetition; raises `RecordError`."""
        return _frame([self], "tokens")


def load(
    campaign: Path | str = "last", *, with_invalid: bool = False, settings: Settings | None = None
) -> LoadedCampaign:
    """A recorded campaign: its manifest, cells, trials, metrics and verdicts, and all of it as tables for pandas.

    `campaign` is a folder, an id, a part of one, or `last`. Summaries leave INVALID repetitions out unless `with_invalid`.
    Raises `UsageError` where it means no campaign, `RecordError` where the record is damaged.
    """
    settings = settings or settings_module.load()
    found = read_campaign(find_campaign(settings.records, str(campaign)), with_invalid=with_invalid)
    return LoadedCampaign(found.folder, found.document, found.with_invalid)


def export_table(
    campaigns: Sequence[Path | str] = ("last",),
    table: TableName = "metrics",
    format: TableFormat = "csv",
    *,
    with_invalid: bool = False,
    settings: Settings | None = None,
) -> bytes:
    """One tidy table of several campaigns as a file's content.

    `campaigns` are studies, folders, ids, parts of ids, or `last`. Raises `UsageError`, `RecordError`.
    """
    settings = settings or settings_module.load()
    named = campaigns_meant(settings.studies, list(map(str, campaigns)))
    found = [load(each, with_invalid=with_invalid, settings=settings) for each in dict.fromkeys(named)]
    if format == "json":
        return _json(found, table)
    frame = _frame(found, table)
    if format == "csv":
        from meltrepro.report.export import safe

        texts = {name: frame[name].map(safe, na_action="ignore") for name in frame.select_dtypes("str")}
        return bytes(frame.assign(**texts).to_csv(index=False).encode())
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


def _rows(campaigns: Sequence[CampaignRecord], table: TableName) -> list[Row]:
    return [row for campaign in campaigns for row in TABLES[table].rows(campaign)]


def _frame(campaigns: Sequence[CampaignRecord], table: TableName) -> DataFrame:
    from pandas import DataFrame

    columns = {field.name: _DTYPES.get(str(field.type), "str") for field in fields(TABLES[table].row)}
    records = map(attrgetter(*columns), _rows(campaigns, table))
    return DataFrame.from_records(list(records), columns=list(columns)).astype(columns)


def _json(campaigns: Sequence[CampaignRecord], table: TableName) -> bytes:
    from pydantic import TypeAdapter

    return TypeAdapter(list[Row]).dump_json(_rows(campaigns, table), indent=1) + b"\n"
