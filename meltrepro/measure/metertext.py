"""The text in a meter's file: its encoding, its lines, its cells and numbers, and what is odd about those that cannot be read.

The manifest says how a file is written. Nothing is guessed from its rows; where they do not fit, what they look like becomes
a hint that names the key to set.
"""

from __future__ import annotations

import codecs
import csv
import math
import re
from collections.abc import Sequence
from typing import BinaryIO

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import Meter, plain

LONGEST_LINE = 1 << 20
"""Bytes; a longer one is taken for the end of the file, as one that is still being written."""
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PACKED = {b"\x1f\x8b": "it is compressed", b"PK\x03\x04": "it is an archive, as spreadsheets are"}
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,6})?")
"""One way only to take a digit: a cell of a million of them must not be tried in a million ways."""
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}([.,'’ \u00a0\u202f])[0-9]{3}(\1[0-9]{3})*(?!\1)([.,][0-9]+)?")
_MEASURED = re.compile(r"([-+0-9.,eE]*[0-9.])\s*([^\W\d_]+|[^\x00-\x7f]\w*)")
_DELIMITERS = {",": "','", ";": "';'", "\t": '"\\t"', " ": "' '", "|": "'|'"}
_EVERYWHERE = "targets.NAME.meter"


class Text:
    """A file as lines of bytes, each with its end, and as text; raises `RecordError` for a file that is none."""

    def __init__(self, file: BinaryIO, name: str, encoding: str | None) -> None:
        self._file = file
        file.seek(0)
        head = file.read(4)
        file.seek(0)
        for magic, what in _PACKED.items():
            if head.startswith(magic):
                raise RecordError(
                    f"{name}: expected a text, but {what}",
                    hint="let the program of the meter write or export CSV, which is read while it grows",
                )
        marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        declared = codecs.lookup(encoding).name if encoding else None
        self.encoding = marked or {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(declared or "", declared)
        """`None` where neither the file nor the manifest says it: UTF-8, and Windows-1252 where a line is no UTF-8."""
        self.newline = "\n".encode(self.encoding or "utf-8")
        self.strange = False
        """Whether any line was taken for Windows-1252 though nobody had said so."""

    def line(self) -> bytes:
        """The next line; without its end where that is not written yet, nothing at the end of the file."""
        line = self._file.readline(LONGEST_LINE)
        while len(self.newline) > 1 and not self.whole(line) and len(line) < LONGEST_LINE:
            more = self._file.read(1) if len(line) % 2 else self._file.readline(LONGEST_LINE)
            if not more:
                break
            line += more
        return line

    def whole(self, line: bytes) -> bool:
        """Whether a line has its end."""
        return line.endswith(self.newline) and len(line) % len(self.newline) == 0

    def seek(self, at: int) -> None:
        """Go on at a byte, the beginning of a line."""
        self._file.seek(at)

    def at(self) -> int:
        """The byte from which the next line is read."""
        return self._file.tell()

    def length(self) -> int:
        """Length of the file by now."""
        return self._file.seek(0, 2)

    def line_after(self, at: int) -> int:
        """Where the next line begins behind a byte."""
        at -= at % len(self.newline)
        self._file.seek(at)
        return at + len(self.line())

    def begun(self) -> bool:
        """Whether there is a whole line, or lines that end in CR alone and will never be whole."""
        self.seek(0)
        return self.whole_bytes() > 0 or self.ends_in_cr()

    def ends_in_cr(self) -> bool:
        """Whether the first lines end in CR alone."""
        self.seek(0)
        first = self.line()
        return "\r" in self.decode(first).rstrip("\r\n") and not self.whole(first)

    def whole_bytes(self) -> int:
        """Length of the file up to the end of its last whole line."""
        size = len(self.newline)
        end = self._file.seek(0, 2)
        end -= end % size
        while end > 0:
            begin = max(0, end - 4096)
            self._file.seek(begin)
            block = self._file.read(end - begin)
            found = block.rfind(self.newline)
            while found % size and found >= 0:
                found = block.rfind(self.newline, 0, found + size - 1)
            if found >= 0:
                return begin + found + size
            end = begin
        return 0

    def decode(self, line: bytes) -> str:
        """The text of a line, with whatever is no text in this encoding replaced."""
        if self.encoding is None:
            try:
                return line.decode("utf-8").lstrip("\ufeff")
            except UnicodeDecodeError:
                self.strange = True
                return line.decode("cp1252", "replace")
        return line.decode(self.encoding, "replace").lstrip("\ufeff")


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of one line, so that a quote that is never closed spoils no other; raises `csv.Error`."""
    line = line.rstrip("\r\n")
    if delimiter == " ":  # padding: a run of them separates, and none stands for a cell
        line = line.replace("\t", " ").strip()
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    return [cell for cell in cells if cell] if delimiter == " " else cells


def cells_in(line: str, delimiter: str) -> list[str]:
    """The cells of a line that may be anything; none of one that is no row."""
    try:
        return cells_of(line, delimiter)
    except csv.Error:
        return []


def number(text: str, decimal: str) -> float | None:
    """The finite number that a cell holds; `None` for anything else, as for one with thousands separators."""
    text = text.strip()
    if decimal == ",":
        text = text.replace(".", " ").replace(",", ".")
    if not _NUMBER.fullmatch(text):
        text = text.replace("\u2212", "-")  # a true minus sign
        if not _NUMBER.fullmatch(text):
            return None
    value = float(text)
    return value if math.isfinite(value) else None


def measured(text: str, decimal: str, unit: str) -> float | None:
    """The same of a cell that may have the unit of its column behind the number."""
    value = number(text, decimal)
    if value is None and (found := _MEASURED.fullmatch(text)):
        same = plain(found[2]).replace("\u03bc", "u").replace("°", "deg") == unit
        return number(found[1], decimal) if same else None
    return value


def shown(text: str) -> str:
    """What a file says, short and harmless."""
    return repr(text)[:60]


def number_hint(text: str, meter: Meter) -> str | None:
    """What to set or mend where a cell holds no number in the form that the manifest says."""
    text = text.strip()
    other = "," if meter.decimal == "." else "."
    thousands = _THOUSANDS.fullmatch(text) is not None
    if number(text, other) is not None:
        also = "; if it separates thousands, let the program of the meter leave it out" if thousands else ""
        if other == ",":
            return f"the decimal sign seems to be a comma: set {_EVERYWHERE}.decimal: ','{also}"
        return f"the decimal sign seems to be a point: leave {_EVERYWHERE}.decimal out{also}"
    if thousands:
        return "its numbers have separators of thousands: let the program of the meter write none"
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        return "it is hexadecimal: let the program of the meter write decimal numbers"
    if "\x00" in text:
        return "the line holds NUL bytes, as files do whose machine stopped while it wrote them; begin a new file"
    if (found := _MEASURED.fullmatch(text)) and plain(found[2]).lower() not in ("nan", "inf", "e"):
        return f"the unit in the cell is not the one that {_EVERYWHERE}.columns says"
    return None


def width_hint(cells: Sequence[str], meter: Meter) -> str:
    """What to mend where a row has another number of cells than its heading."""
    if meter.delimiter == "," and len(cells) > 2 and all(cell.lstrip("+-").isdigit() for cell in cells if cell):
        return (
            "decimal sign and delimiter seem to be a comma both: let the program of the meter write points, semicolons "
            "or quotes"
        )
    return "let the program of the meter write a cell for each heading, or begin a new file if the line is damaged"


def heading_hint(lines: Sequence[str], wanted: Sequence[str], text: Text, meter: Meter) -> str:
    """What to set where no line has the headings that are wanted."""
    for delimiter, written in _DELIMITERS.items():
        if delimiter != meter.delimiter and any(_has(line, delimiter, wanted) for line in lines):
            return f"the columns seem to be separated by {written}: set {_EVERYWHERE}.delimiter: {written}"
    if any("\x00" in line for line in lines):
        return f"it is no text, or one in UTF-16: export CSV, or set {_EVERYWHERE}.encoding: utf-16-le (or -be)"
    if text.ends_in_cr():
        return "its lines end in CR alone: let the program of the meter end them in LF or CRLF"
    folded = {plain(cell).casefold(): cell for line in lines for cell in cells_in(line, meter.delimiter)}
    near = [folded[plain(name).casefold()] for name in wanted if plain(name).casefold() in folded]
    near = [name for name in near if name not in wanted]
    if near:
        return f"the file writes {', '.join(map(shown, near))}: write it so in {_EVERYWHERE}"
    if text.strange:
        return f"say how the file is encoded ({_EVERYWHERE}.encoding), or name columns by their place ('#2')"
    return f"name the columns as the file does, or by their place ('#2'), in {_EVERYWHERE}"


def _has(line: str, delimiter: str, wanted: Sequence[str]) -> bool:
    found = {plain(cell) for cell in cells_in(line, delimiter)}
    return all(plain(name) in found for name in wanted)
