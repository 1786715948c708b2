"""The last station of everything that is printed: no text of a stranger steers a terminal, whoever prints it.

rich writes sequences of its own, so its consoles look behind the streams here and see to their texts themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from meltrepro.words import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Standard output and error that show what cannot be shown as `?`, until the block ends."""
    with contextlib.ExitStack() as stack:
        for redirect, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            # A program that is started without the stream has none.
            behind = stream or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
            if hasattr(behind, "reconfigure"):  # a terminal that lacks a character is no reason to fail
                stack.callback(behind.reconfigure, errors=behind.errors)
                behind.reconfigure(errors="backslashreplace")
            stack.enter_context(redirect(cast(TextIO, _Shown(behind))))
        yield


def rich_console(*, stderr: bool = False) -> Console:
    """A console of rich for people, on one of the standard streams."""
    from rich.console import Console
    from rich.segment import Segment

    class Shown(Console):
        def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
            for part in super().render(*arguments, **options):
                yield part if part.control else Segment(visible(part.text), part.style)

    sane = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES") or re.fullmatch(r"[1-9][0-9]{0,4}", value)
    }
    return Shown(stderr=stderr, highlight=False, markup=False, emoji=False, _environ=sane)


def result_console() -> Console:
    """A console for results, whose lines are never shortened in a pipe."""
    out = rich_console()
    if not out.is_terminal:
        out.width = 10_000
    return out


def plain_table(*columns: str, texts: int = 1) -> Table:
    """A table without lines, of so many columns of `texts` and then of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < texts else "right", overflow="fold")
    return table


def typed(*arguments: object) -> str:
    """A command of this program as it can be typed here."""
    return shlex.join(["meltrepro" if shutil.which("meltrepro") else sys.argv[0], *map(str, arguments)])


class _Shown:
    """A stream that what is printed goes through; in everything else the one behind it."""

    buffer: None = None
    """Nobody gets at the bytes behind it, as typer would where the encoding is ASCII."""

    def __init__(self, behind: TextIO) -> None:
        self.rich_proxied_file = behind
        """Where rich writes to."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(visible(text))
