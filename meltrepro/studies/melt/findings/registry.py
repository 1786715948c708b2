"""All findings in order, and how they are decided; `docs/findings.md` is generated from here.

`python -m meltrepro.studies.melt.findings.registry > docs/findings.md`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from meltrepro.report.results import CellResult, Results
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.accuracy import ACCURACIES
from meltrepro.studies.melt.findings.energy import ENERGIES
from meltrepro.studies.melt.findings.heat import HEAT
from meltrepro.studies.melt.findings.model import Definition, Finding, Judgement, Ruling, missing
from meltrepro.studies.melt.findings.operators import OPERATORS
from meltrepro.studies.melt.findings.platforms import PLATFORMS
from meltrepro.studies.melt.findings.speed import SPEEDS
from meltrepro.words import counted

DEFINITIONS: tuple[Definition, ...] = tuple(
    sorted(
        (*SPEEDS, *PLATFORMS, *OPERATORS, *ENERGIES, *HEAT, *ACCURACIES),
        key=lambda definition: int(definition.id[1:]),
    )
)
"""F1 to F22."""


def evaluate(results: Results, *, virtual_only: bool = False) -> tuple[Finding, ...]:
    """Every finding, in order: by real devices where these can decide it, else by virtual ones, never by both together."""
    return tuple(find(definition, results, virtual_only=virtual_only) for definition in DEFINITIONS)


def tally(findings: Sequence[Finding]) -> str:
    """`4 hold (1 virtual, 2 synthetic), 1 fails, 17 not testable here`."""
    verbs = ((Ruling.holds, "holds", "hold"), (Ruling.fails, "fails", "fail"))
    parts = []
    for verdict, one, many in verbs:
        found = [finding for finding in findings if finding.verdict is verdict]
        marks = {name: sum(getattr(each, name) for each in found) for name in ("virtual", "synthetic")}
        shown = ", ".join(f"{n} {name}" for name, n in marks.items() if n)
        parts.append(counted(len(found), one, many) + (f" ({shown})" if shown else ""))
    rest = sum(finding.held is None for finding in findings)
    return f"{', '.join(parts)}, {rest} not testable here"


def find(definition: Definition, results: Results, *, virtual_only: bool = False) -> Finding:
    """One finding, in the same way."""
    usable = [cell for cell in results.cells if definition.synthetic or not cell.synthetic]
    real = [] if virtual_only else [cell for cell in usable if not cell.device.virtual]
    pretended = [cell for cell in usable if cell.device.virtual]
    if not usable or (virtual_only and not pretended):
        decision = missing(_unusable(definition, results.cells))
        return Finding(**vars(decision), definition=definition, virtual=False)
    decision, virtual = _decide(definition, real), False
    if decision.held is None and pretended:
        other = _decide(definition, pretended)
        if other.held is not None or not real:
            decision, virtual = other, True
    return Finding(**vars(decision), definition=definition, virtual=virtual)


def _decide(definition: Definition, cells: Sequence[CellResult]) -> Judgement:
    """By the rule; where it cannot tell and nothing was measured, that is the reason, in the words of the records."""
    if not cells:
        return missing("no cell ran on a real device")
    decision = definition.decide(cells)
    lost = of_cells.why_unmeasured(cells) if decision.held is None else ""
    return replace(decision, reason=f"{decision.reason}; no cell was measured: {lost}") if lost else decision


def _unusable(definition: Definition, cells: Sequence[CellResult]) -> str:
    """What there is instead of cells that a rule may use, and what it would need."""
    if not cells:
        there = "there are no cells"
    elif not definition.synthetic and all(cell.synthetic for cell in cells):
        all_of = "the only cell is" if len(cells) == 1 else f"all {len(cells)} cells are"
        there = f"{all_of} of made-up (synthetic) weights, whose answers mean nothing"
    else:
        there = f"none of {counted(len(cells), 'cell')} ran on a virtual device with weights that count here"
    return f"{there}; needs {definition.needs}"


def document() -> str:
    """The text of docs/findings.md."""
    claims = ["| | claim | holds when | origin |", "| --- | --- | --- | --- |"]
    needs = ["| | needs | paper's figure |", "| --- | --- | --- |"]
    for one in DEFINITIONS:
        origin = "direct" if one.direct else "implied"
        claims.append(f"| {one.id} | {one.claim} | {_escaped(one.threshold)} | {origin} |")
        figures = [
            f"{reference.name}: {reference.quantity}{' (quoted by others)' if reference.secondhand else ''}"
            for reference in one.reference()
        ]
        needs.append(f"| {one.id} | {one.needs} | {'; '.join(figures) or '-'} |")
    return _DOCUMENT.format(claims="\n".join(claims), needs="\n".join(needs))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


_DOCUMENT = """\
# Findings

Generated from `meltrepro/studies/melt/findings`; to change a definition, change it there and run
`python -m meltrepro.studies.melt.findings.registry > docs/findings.md`.

MELT's claims as rules that a program can evaluate. `meltrepro findings RUN...` decides them from the records of campaigns whose
manifests say `study: melt`, as those in `specs/paper` do; every `meltrepro run` of such a manifest does so at its end and says how
many hold. `--study melt` decides them on any other campaigns. A claim **holds**, **fails**, or
is **not testable here**, with what is missing. A claim that fails is a result and no error.

The paper's own thresholds are not known, because its text could not be read; those below are this project's, fixed before
anything was measured. *Direct* claims follow the paper's abstract or artifact closely, *implied* ones what its scripts
measure. Its figures stand beside a claim where they were recovered (`meltrepro/studies/melt/reference`); one that was only quoted by
others is a rough range and no target.

{claims}

## What each finding needs

{needs}

## Rules for all

- Cells that are INVALID, failed or skipped give no figures; F5 and F22 are about those that could not run. Of a cell that was run
  several times the last campaign counts.
- **Real and virtual devices are never mixed.** A finding is decided by real devices; where these cannot, by virtual ones, and is
  marked `virtual`: it then says that the toolchain works, and nothing of real devices. `--virtual-only` leaves real ones out.
- **Made-up weights** are fit for speed, memory, size and energy, and mark a finding `synthetic`. F6 and F7 never see them.
- Where a claim has a part that the data cannot tell (F6: of one model size, F9: of one context length, F18: without energy, F21:
  without power at rest), the rest decides, and a note says what was not tested.
- "The same" device means the same id, and for a board the same power mode.

## Two that are easily fooled

- **F14 beside F20.** In MELT's sustained workload one conversation grows over 48 prompts, so that speed falls for two reasons. What a
  token in the context costs is learnt from cells of the same model and quantization with several conversations a trial, where
  contexts begin anew while the device stays warm (`continuous: true` makes a sustained workload one of them), and taken out. Heat within
  those conversations counts as the context's, so that the rule errs on the side of *fails*. Without such a cell a slower end is
  not testable. A trial that the kernel slowed down because of heat is INVALID by default: a sustained workload has to allow it
  (`measure: {{limits: {{throttle_events: null}}}}`).
- **F4 and F6 on small models.** Rows that are no multiple of 256 make K quantizations fall back to other types, so that 3 bits are hardly
  smaller than 4. F4 leaves out pairs whose files differ by less than 5 %. Weights that come from a quantized file make a
  poor reference for F6, which says so.

## Checks of scores

A score that is a count over n is one of n + 1 values, and its standard error follows from it; two models never have the same scores
all along. `meltrepro/studies/melt/checks.py` checks that of all scores that findings use. On MELT's published table it finds the four
rows of Zephyr 3B that are TinyLlama's and the two standard errors of Gemma 2B that are Gemma 7B's.
"""


if __name__ == "__main__":
    print(document(), end="")
