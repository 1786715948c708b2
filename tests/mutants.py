"""Mutation testing: small changes to the code of a part, one at a time, that its tests ought to notice.

mutmut makes the changes (`make mutants`, docs/architecture.md). What survives and is not explained in
`tests/data/mutants.yaml` is an error.

    python -m tests.mutants stats | stats.ratio | ... [--sample N] [--seed S]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".mutants"
EXPLAINED = ROOT / "tests" / "data" / "mutants.yaml"
JUDGES = {
    "stats.equivalence": ("equivalence",),
    "stats.ratio": ("ratio",),
    "stats.relation": ("relation",),
    "stats.sequential": ("sequential",),
    "stats.stability": ("stability",),
    "stats.summary": ("summary",),
    "stats.tokens": ("tokens",),
    "measure.alignment": ("clocks", "energy"),
    "measure.calibration": ("calibration",),
    "measure.clocks": ("clocks",),
    "measure.energy": ("energy", "energy_metrics"),
    "measure.integrals": ("integrals", "gaps"),
    "measure.metrics": ("metrics",),
    "measure.validity": ("validity",),
    "plan.estimate": ("plan_command", "planner"),
    "plan.identity": ("identity", "ids"),
    "plan.names": ("names",),
    "plan.planner": ("planner", "planner_scores"),
}
"""The tests of tests/unit that judge a module."""
SURVIVED, UNCALLED = 0, 33
"""Exit codes that mutmut notes: all tests passed, or none runs the function."""


def prepare(part: str) -> Path:
    """The folder in which mutmut works on a part: the checkout by links, and its settings."""
    modules = [module for module in JUDGES if fnmatch(module, part) or module.startswith(f"{part}.")]
    if not modules:
        raise SystemExit(f"no part {part}; there are: {', '.join(JUDGES)}")
    folder = WORK / part
    copy = folder / "mutants"
    copy.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.iterdir():
        if entry.name.startswith(".") or entry.name == "pyproject.toml":
            continue
        for place in (folder, copy):  # of its copy mutmut writes these two itself
            link = place / entry.name
            if not link.exists() and (place is folder or entry.name not in ("meltrepro", "tests")):
                link.symlink_to(entry)
    tests = sorted({f"tests/unit/test_{name}.py" for module in modules for name in JUDGES[module]})
    settings = {
        "source_paths": ["meltrepro"],
        "only_mutate": [f"meltrepro/{module.replace('.', '/')}.py" for module in modules],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": tests,
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")
    return folder


def forget_survivors(folder: Path) -> None:
    """Let them be tried again, as tests may have changed; what was killed stays so until its function changes."""
    for path in (folder / "mutants").rglob("*.meta"):
        meta = json.loads(path.read_text(encoding="utf-8"))
        codes = meta["exit_code_by_key"]
        meta["exit_code_by_key"] = {
            name: code if code not in (SURVIVED, UNCALLED) else None for name, code in codes.items()
        }
        path.write_text(json.dumps(meta), encoding="utf-8")


def sample(folder: Path, n: int, seed: int) -> list[str]:
    """Names of `n` mutants, the same for a seed and the same code."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.file_utils import walk_mutatable_files
    from mutmut.utils.format_utils import get_mutant_name

    with contextlib.chdir(folder):
        names = [
            get_mutant_name(path, name)
            for path in sorted(walk_mutatable_files())
            for name in mutate_file_contents(str(path), path.read_text(encoding="utf-8")).mutant_names
        ]
    return random.Random(seed).sample(names, min(n, len(names)))


def results(folder: Path) -> Iterator[tuple[Path, str, int | None]]:
    """File, name and exit code of every mutant; no code where it was not tried."""
    for path in sorted((folder / "mutants").rglob("*.meta")):
        source = path.relative_to(folder / "mutants").with_suffix("")
        for name, code in json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].items():
            yield source, name, code


def changed(source: Path, name: str) -> str:
    """What a mutant changes, in one line that stays the same when lines move."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    lines = get_diff_for_mutant(name, path=source).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    function, owner = orig_function_and_class_names_from_key(name)
    module = ".".join(source.with_suffix("").parts[1:])
    return f"{module}.{f'{owner}.' if owner else ''}{function}: {before} -> {after}"


def explained(change: str) -> str | None:
    """Why a mutant may survive; each explanation is a regular expression or the whole change."""
    groups = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8"))
    return next((group["why"] for group in groups if change in group.get("changes", ()) or _like(change, group)), None)


def _like(change: str, group: dict[str, str]) -> bool:
    return "like" in group and re.search(group["like"], change) is not None


def main() -> int:
    """Try the mutants of a part; 1 where one survives without an explanation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", help=f"stats, measure, plan or one of {', '.join(JUDGES)}")
    parser.add_argument("--sample", type=int, default=0, help="try only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that sample")
    arguments = parser.parse_args()
    folder = prepare(arguments.part)
    forget_survivors(folder)
    names = sample(folder, arguments.sample, arguments.seed) if arguments.sample else []
    # Examples are the same every time, as on CI, and so is the verdict.
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names]
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, cwd=folder, env={**os.environ, "CI": "1"}, stdout=file, stderr=file).returncode
    if status:
        print(f"mutmut failed; what it said stands in {log.relative_to(ROOT)}")
        return 1
    with contextlib.chdir(folder):
        found = [(source, name, code) for source, name, code in results(folder) if not names or name in names]
        survivors = {changed(source, name): code for source, name, code in found if code in (SURVIVED, UNCALLED)}
    reasons = {change: explained(change) for change in survivors}
    new = [change for change, reason in reasons.items() if reason is None]
    untried = sum(code is None for _, _, code in found)
    killed = len(found) - untried - sum(code in (SURVIVED, UNCALLED) for _, _, code in found)
    print(
        f"{len(found)} mutants, {killed} killed, {len(found) - untried - killed} survive, {len(new)} of them unexplained"
    )
    if untried:
        print(f"{untried} were not tried: call it again")
    for change in new:
        print(f"SURVIVES{' (no test calls it)' if survivors[change] == UNCALLED else ''}  {change}")
    return 1 if new or untried else 0


if __name__ == "__main__":
    sys.exit(main())
