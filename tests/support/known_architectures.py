"""The table of architectures in docs/conversion.md: `python -m tests.support.known_architectures` writes it anew."""

from __future__ import annotations

from meltrepro.frameworks.llamacpp.knowledge import of_release
from meltrepro.frameworks.llamacpp.module import RELEASES
from tests.support import pages
from tests.support.random_models import CONFIGURATIONS

PLACE = ("conversion.md", "architectures")


def table() -> str:
    """A row for each architecture of a GGUF file: the checkpoints that become one, and the releases that convert them."""
    rows = ["| architecture | checkpoints | releases | compared |", "| --- | --- | --- | --- |"]
    names: dict[str, set[str]] = {}
    releases: dict[str, list[str]] = {}
    for release in RELEASES:
        knowledge = of_release(release)
        assert knowledge is not None
        for name, architecture in knowledge.checkpoints.items():
            names.setdefault(architecture, set()).add(name)
        for architecture in {*knowledge.checkpoints.values()}:
            releases.setdefault(architecture, []).append(release)
    compared: dict[str, list[str]] = {}
    for name, (kind, _) in CONFIGURATIONS.items():
        checkpoint = f"{kind.removesuffix('_text').replace('_', '')}forcausallm"
        for architecture, known in names.items():
            if checkpoint in map(str.casefold, known):
                compared.setdefault(architecture, []).append(name)
    for architecture in sorted(names):
        checkpoints = ", ".join(sorted(names[architecture], key=lambda name: (name.casefold(), name)))
        rows.append(
            f"| {architecture} | {checkpoints} | {', '.join(releases[architecture])} | {', '.join(compared.get(architecture, ()))} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    pages.write(*PLACE, table())
