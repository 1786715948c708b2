"""MELT as a study: the paper's claims and figures (MobiCom'24, arXiv 2403.12844)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap

from meltrepro.report.results import Results
from meltrepro.report.values import Section
from meltrepro.stats.summary import TO_JUDGE, TOO_FEW
from meltrepro.studies.base import Decided
from meltrepro.studies.melt import tables
from meltrepro.studies.melt.checks import Oddity, check_scores, scores_of
from meltrepro.studies.melt.findings.model import Finding
from meltrepro.studies.melt.findings.registry import evaluate, tally
from meltrepro.words import counted, visible

_WIDTH = 116
_INDENT = "     "


class Melt:
    """The protocol `meltrepro.studies.base.Study`."""

    name = "melt"

    def decide(self, results: Results, *, virtual_only: bool = False) -> Decided:
        findings = evaluate(results, virtual_only=virtual_only)
        shown = (findings, results, check_scores(scores_of(results)))
        return Decided(tally(findings), as_text(*shown), as_json(*shown))

    def sections(self, results: Results) -> tuple[Section, ...]:
        findings = evaluate(results)
        return tables.sections(results, findings, tally(findings))


STUDY = Melt()


def as_text(findings: Sequence[Finding], results: Results, remarks: Sequence[Oddity] = ()) -> str:
    """One paragraph a finding: verdict, why, numbers, what the paper had, notes."""
    campaigns = ", ".join(results.names) or "no campaign"
    lines = _wrapped(f"{campaigns}: {tally(findings)}", "")
    if unbelieved := _unbelieved(results):
        lines += _wrapped(f"cells that are INVALID and give no figures: {unbelieved}; meltrepro show says why", "")
    if partly := sum(cell.state == "measured" and bool(cell.exclusions) for cell in results.cells):
        lines += _wrapped(
            f"cells of which single repetitions are INVALID or failed: {partly}; meltrepro show says why", ""
        )
    if few := sum(cell.too_few for cell in results.cells):
        lines += _wrapped(f"{counted(few, 'cell')} of fewer than {TO_JUDGE} repetitions: {TOO_FEW}", "")
    lines.append("")
    for finding in findings:
        marks = f" ({', '.join(finding.marks)})" if finding.marks and finding.held is not None else ""
        lines += _wrapped(f"{finding.definition.id:<4} {finding.verdict.value}{marks}: {finding.definition.claim}", "")
        lines += _wrapped(finding.reason, _INDENT)
        lines += [line for text in _details(finding) for line in _wrapped(text, _INDENT)]
    if remarks:
        lines += ["", "scores that cannot be right:"]
        lines += [line for remark in remarks for line in _wrapped(f"{remark.kind}: {remark.text}", _INDENT)]
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding], results: Results, remarks: Sequence[Oddity] = ()) -> str:
    """All of it; the same findings give the same bytes."""
    document = {
        "format": 1,
        "campaigns": dict(results.names),
        "tally": tally(findings),
        "invalid_cells": _unbelieved(results),
        "findings": [finding.as_json() for finding in findings],
        "scores": [{"kind": remark.kind, "text": remark.text} for remark in remarks],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _unbelieved(results: Results) -> int:
    return sum(cell.state == "invalid" for cell in results.cells)


def _details(finding: Finding) -> Iterator[str]:
    if finding.numbers:
        yield ", ".join(f"{name} {quantity}" for name, quantity in finding.numbers.items())
    if reference := finding.definition.reference():
        shown = (f"{one.name} {one.quantity}" + (" (quoted by others)" if one.secondhand else "") for one in reference)
        yield f"the paper: {', '.join(shown)}"
    yield from (f"note: {note}" for note in finding.notes)


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(
        visible(text), _WIDTH, initial_indent=indent, subsequent_indent=indent or _INDENT, break_long_words=False
    )
