"""`--only`: which cells of a matrix the user wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from meltrepro.errors import UsageError


class Selection:
    """Glob patterns over cell ids; `*` also matches `/`, case counts, no pattern at all wants everything."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = {pattern: re.compile(translate(pattern)) for pattern in patterns}
        self._idle = set(patterns)

    def wants(self, cell_id: str) -> bool:
        """Whether any pattern matches; remembers which ones did."""
        if not self._patterns:
            return True
        hits = [pattern for pattern, compiled in self._patterns.items() if compiled.match(cell_id)]
        self._idle.difference_update(hits)
        return bool(hits)

    def refuse_idle(self, example: str) -> None:
        """Raise `UsageError` where a pattern matched nothing at all: it is a slip, not a wish."""
        if self._idle:
            idle = ", ".join(repr(pattern) for pattern in self._patterns if pattern in self._idle)
            raise UsageError(
                f"--only: no cell matches {idle}",
                hint=f"cells are named model/quantization/framework/target/workload, for example {example}",
            )
