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

from meltrepro import resources
from meltrepro.words import folded, pieces, visible, wrapped

_BAD = r"(?<!\b0 )(INVALID|FAIL|failed|DIFFERS|missing)"
"""Words that are coloured, where there is colour; not where it is nothing that failed."""

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text


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
    stream = sys.stderr if stderr else sys.stdout
    # While lines move, rich puts a stream of its own before ours, and would look behind that one only.
    while hasattr(stream, "rich_proxied_file"):
        stream = stream.rich_proxied_file
    # FORCE_COLOR asks for colours in a pipe, not for lines that move or have a width.
    moves = None if stream.isatty() else False
    return Shown(file=stream, highlight=False, markup=False, emoji=False, force_interactive=moves, _environ=sane)


def result_console() -> Console:
    """A console for results, whose lines are never shortened in a pipe."""
    out = rich_console()
    if not out.is_interactive:
        out.width = 10_000
    return out


def say(out: Console, line: str) -> None:
    """Print a line: broken between words on a terminal, one line elsewhere; what is bad in colour."""
    from rich.text import Text

    text = Text(line, overflow="ignore")
    text.highlight_regex(_BAD, "bold red")
    out.print(text, soft_wrap=not out.is_interactive, crop=False)


def plain_table(*columns: str, texts: int = 1) -> Table:
    """A table without lines, of so many columns of `texts` and then of numbers."""
    from rich.table import Table

    class Plain(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(_Cell(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    table = Plain(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(_Cell(column), justify="left" if number < texts else "right")
    return table


class _Cell:
    """A text in a table that breaks between words and after the slashes of names."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        longest = max(map(len, pieces(self._text)), default=0)
        return Measurement(longest, max(longest, *map(len, self._text.splitlines() or [""])))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        text = Text("\n".join(wrapped(self._text, options.max_width)))
        text.highlight_regex(_BAD, "bold red")
        yield text


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
        shown = visible(text)
        if not text.startswith(("{", "[")):  # JSON is for programs
            shown = resources.with_pages(shown)
            if self.rich_proxied_file.isatty():
                width = shutil.get_terminal_size().columns
                shown = "\n".join("\n".join(folded(line, width)) for line in shown.split("\n"))
        self.rich_proxied_file.write(shown)
        return len(text)
