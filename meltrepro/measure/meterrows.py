"""The rows of a meter's file.

Lines before the heading are skipped, whatever they hold, and so are lines without a time right after it (units) and at the
end of what is read (sums). A heading that comes again counts from there on. A last line without its end is still being
written. A cell that is empty or says that there is no value is no sample; any other that holds no number is a fault of its
channel, a row of another width than its heading is one of all channels. Rows of one and the same time are one sample: the mean
of gauges, the last value of counters. A time that goes back, and a line without a time between two samples, damage the file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import Meter, place_of, plain
from meltrepro.measure.metertext import Text, cells_in, cells_of, heading_hint, measured, number_hint, shown, width_hint
from meltrepro.measure.metertime import NoTime, Times
from meltrepro.record.samples import MOST_NS, FaultKind, SensorFault, measurable
from meltrepro.words import counted

_WITHIN = 50
"""Lines in which the first heading must be found; most lines without a time that may follow it or end the file."""
_UNITS = 2
"""Lines below a heading that may belong to it while no sample has come."""
_LOOKED_AT = 1 << 16
"""Bytes of the end of a file that are looked at before a trial."""
_COMMENTS = ("#", "//")
_NO_VALUE = re.compile(r"-*|[-+]?nan|n/?a|null|none", re.IGNORECASE)


@dataclass(frozen=True)
class _Places:
    """Where in a row the columns are."""

    time: tuple[int, ...]
    """Of the date, where it stands apart, and of the time."""
    columns: tuple[int, ...]
    width: int | None = None
    """Cells of the heading; `None` before the first row of a file without one."""


@dataclass
class Rows:
    """A file on its way to a recording."""

    name: str
    """Of the file, for messages."""
    meter: Meter
    text: Text
    counters: Sequence[bool]
    """Whether each column adds up."""
    times: list[int] = field(default_factory=list)
    columns: list[tuple[list[int], list[float]]] = field(default_factory=list)
    faults: list[SensorFault] = field(default_factory=list)
    torn: bool = False
    merged: int = 0
    """Rows that had the time of the row before."""

    def __post_init__(self) -> None:
        self.columns = [([], []) for _ in self.meter.columns]
        self._wanted = [each for each in (self.meter.date, self.meter.time, *self.meter.columns) if each is not None]
        self._named = [name for name in self._wanted if place_of(name) is None]
        self._units = list(self.meter.columns.values())
        self._shares = [0] * len(self.columns)
        """Rows that each column's last value is made of."""
        self._faulty = [False] * len(self.columns)
        self._fresh = False
        """Whether no sample has come since the heading."""
        self._timeless = 0
        """Lines without a time since the last sample."""
        self._complaint: RecordError | None = None
        """What is wrong with the first line since the last sample that is none."""
        self._known = False
        """Whether it says what to set."""
        self._repeated: RecordError | None = None
        """What to say where all rows have one time."""
        self._bad: str | None = None
        """The first cell that holds no number."""
        self._restarted: int | None = None
        """Line of the last heading between samples."""

    def read(self, start: int) -> None:
        """Read what comes from byte `start` on and is there by now, as a fast meter writes on; raises `RecordError`."""
        end = self.text.whole_bytes()
        self.torn = self.text.length() > end
        self.text.seek(0)
        places, number, _ = self._heading(start)
        clock = Times(self.meter)
        at = self.text.at()
        while at < end and (line := self.text.line()):
            number, at = number + 1, at + len(line)
            if not self.text.whole(line):
                self.torn = True
                return
            try:
                cells = cells_of(self.text.decode(line), self.meter.delimiter)
            except csv.Error as error:
                raise RecordError(
                    f"{self.name}:{number}: expected a row of cells, got {shown(self.text.decode(line))}: {error}",
                    hint="the line is damaged; repeat the trial",
                ) from error
            if any(cells):
                places = self._take(cells, places, clock, number)

    def read_last(self) -> None:
        """Read the last rows of what has been written, none before the last heading; raises `RecordError`."""
        end = self.text.whole_bytes()
        self.text.seek(0)
        *_, begin = self._heading(end)
        if end - begin > _LOOKED_AT:
            begin = self.text.line_after(end - _LOOKED_AT)
        self.text.seek(0)
        self.read(begin)

    @property
    def undecided(self) -> bool:
        """Whether nothing has come since the heading but what may be its units."""
        return self._fresh and not self._known and 0 < self._timeless <= _UNITS

    def complain(self) -> None:
        """Raise `RecordError` where there are rows, and nothing can be made of them."""
        if len(self.times) < 2 and self._complaint is not None:
            raise self._complaint
        if len(self.times) > 1 and not any(times for times, _ in self.columns):
            raise RecordError(
                f"{self.name}: expected numbers, no row has one in {', '.join(map(repr, self.meter.columns))}",
                hint=number_hint(self._bad or "", self.meter)
                or "name the columns that hold numbers, in targets.NAME.meter.columns",
            )

    def require_two(self) -> None:
        """Raise `RecordError` where there are not two samples, whose distance is the rate."""
        if len(self.times) < 2:
            raise self._repeated or RecordError(
                f"{self.name}: fewer than two samples were added while the trial ran",
                hint="is the program of the meter still writing?",
            )

    def _take(self, cells: list[str], places: _Places, clock: Times, number: int) -> _Places:
        """One line; returns where columns are from there on."""
        when = " ".join(cells[at] for at in places.time if at < len(cells))
        try:
            t_ns = clock.read(when, self.times[-1] if self.times else None)
        except NoTime as error:
            if (found := self._found(cells)) is not None:
                self._fresh, self._timeless, self._complaint, self._restarted = True, 0, None, number
                return found
            if not cells[0].startswith(_COMMENTS):
                self._no_time(when if places.time[-1] < len(cells) else None, error, number)
            return places
        width = places.width or max(len(cells), 1 + max(*places.columns, *places.time))
        if len(cells) != width and _trimmed(cells, width) != width:
            self._misfit(cells, places, t_ns, number)
            return places
        if self._timeless and not self._fresh and self._complaint is not None:
            raise self._complaint
        self._fresh, self._timeless, self._complaint = False, 0, None
        self._order(t_ns, when, number)
        for place, index in enumerate(places.columns):
            self._value(place, cells[index], t_ns)
        return places if places.width else replace(places, width=width)

    def _no_time(self, when: str | None, error: NoTime, number: int) -> None:
        self._timeless += 1
        if self._complaint is None or (error.known and not self._known):
            said = "no cell" if when is None else shown(when)
            self._complaint = RecordError(f"{self.name}:{number}: {said} is no time", hint=error.hint)
            self._known = error.known
        if self._timeless > _WITHIN:
            raise self._complaint

    def _misfit(self, cells: list[str], places: _Places, t_ns: int, number: int) -> None:
        """A row whose cells cannot belong to their headings."""
        detail = f"line {number} has {counted(len(cells), 'cell')}, its heading {places.width}"
        if self._complaint is None:
            self._complaint = RecordError(f"{self.name}: {detail}", hint=width_hint(cells, self.meter))
        last_ns = self.times[-1] if self.times else 0
        for place, index in enumerate(places.columns):
            if not self._faulty[place]:
                said = detail if index < len(cells) else "no cell"
                at_ns = t_ns if last_ns <= t_ns <= MOST_NS else last_ns
                self.faults.append(SensorFault(at_ns, place, FaultKind.not_a_number, said))
            self._faulty[place] = True

    def _value(self, place: int, cell: str, t_ns: int) -> None:
        found = measured(cell, self.meter.decimal, self._units[place])
        value = measurable(found) if found is not None else None
        if value is None:
            self._bad = self._bad or cell
            if not _NO_VALUE.fullmatch(cell):
                if not self._faulty[place]:
                    self.faults.append(SensorFault(t_ns, place, FaultKind.not_a_number, shown(cell)))
                self._faulty[place] = True
            return
        self._faulty[place] = False
        times, values = self.columns[place]
        if not times or times[-1] != t_ns:
            times.append(t_ns)
            values.append(value)
            self._shares[place] = 1
        elif self.counters[place]:
            values[-1] = value
        else:
            self._shares[place] += 1
            values[-1] += (value - values[-1]) / self._shares[place]

    def _order(self, t_ns: int, when: str, number: int) -> None:
        where = f"{self.name}:{number}"
        if t_ns > MOST_NS:
            raise RecordError(
                f"{where}: {shown(when)} is no time in {self.meter.time_unit}",
                hint="is targets.NAME.meter.time_unit right?",
            )
        if t_ns < 0:
            raise RecordError(
                f"{where}: the time is negative, {shown(when)}; expected times from 0 on",
                hint="name a column that counts from 0 or shows Unix time, in targets.NAME.meter.time, or have seconds added "
                "to every time: targets.NAME.meter.time_offset_s",
            )
        if not self.times or t_ns > self.times[-1]:
            self.times.append(t_ns)
        elif t_ns == self.times[-1]:
            self.merged += 1
            self._repeated = self._repeated or RecordError(
                f"{where}: the time is that of the row before, {t_ns} ns: the times are too coarse for the meter's rate",
                hint="let the program of the meter write times with more digits, or fewer samples",
            )
        else:
            why = "the meter's clock was set, or its file holds several recordings"
            if self._restarted is not None:
                why = f"the program of the meter was started again in line {self._restarted}"
            raise RecordError(
                f"{where}: the time does not increase, from {self.times[-1]} to {t_ns} ns",
                hint=f"{why}; begin a new file",
            )

    def _heading(self, start: int) -> tuple[_Places, int, int]:
        """Where columns are, how many lines were read, up to `start` and the heading, and where the heading ends.

        The last heading before `start` counts, or the first one where there is none.
        """
        found = None if self._named else self._placed()
        self._fresh = not self._named and start == 0
        lines: list[str] = []
        number = end = ends = 0
        token = self._token()
        while end < start or (found is None and number < _WITHIN):
            line = self.text.line()
            if not self.text.whole(line):
                break
            number, begin, end = number + 1, end, end + len(line)
            if begin < start < end:
                raise self._rewritten()
            self._fresh = False
            if not self._named or (number > _WITHIN and token not in line):
                continue  # a long file has few headings
            text = self.text.decode(line)
            lines += [text] if len(lines) < _WITHIN else []
            if (places := self._found(cells_in(text, self.meter.delimiter))) is not None:
                found, ends, self._fresh = places, end, True
        if end < start:
            raise self._rewritten()
        if found is None:
            raise self._no_heading(lines)
        return found, number, ends

    def _found(self, cells: Sequence[str]) -> _Places | None:
        """Where the columns are if this is a heading; raises `RecordError` where it does not tell them apart."""
        known = [plain(cell) for cell in cells]
        if not self._named or not {plain(name) for name in self._named} <= set(known):
            return None
        for name in self._named:
            if known.count(plain(name)) > 1:
                places = " or ".join(f"'#{i + 1}'" for i, cell in enumerate(known) if cell == plain(name))
                raise RecordError(
                    f"{self.name}: several columns have the heading {name!r}",
                    hint=f"name the one that is meant by its place, {places}, in targets.NAME.meter",
                )
        return self._placed(known)

    def _placed(self, known: Sequence[str] = ()) -> _Places:
        at = [known.index(plain(name)) if (place := place_of(name)) is None else place for name in self._wanted]
        dated = 1 if self.meter.date is None else 2
        twice = len(set(at[dated:])) < len(at[dated:])
        if twice or (known and max(at) >= len(known)):
            what = (
                "two columns that are one" if twice else f"column '#{max(at) + 1}' of a heading of {len(known)} cells"
            )
            raise RecordError(
                f"{self.name}: targets.NAME.meter names {what}",
                hint="count the columns from '#1' on, in targets.NAME.meter",
            )
        width = max(_trimmed(known, 1), max(at) + 1) if known else None
        return _Places(tuple(at[:dated]), tuple(at[dated:]), width)

    def _token(self) -> bytes:
        """What no heading lacks."""
        words = [word for name in self._named for word in re.findall("[A-Za-z0-9]+", name)]
        return max(words, key=len, default="").encode(self.text.encoding or "utf-8")

    def _no_heading(self, lines: Sequence[str]) -> RecordError:
        cells = [[plain(cell) for cell in cells_in(line, self.meter.delimiter)] for line in lines]
        seen = max(cells, key=len, default=[])
        missing = [name for name in self._named if plain(name) not in seen]
        return RecordError(
            f"{self.name}: no line has the headings {', '.join(map(repr, self._named))}; missing are "
            f"{', '.join(map(repr, missing))}, found was {', '.join(map(repr, seen))[:200] or 'nothing'}",
            hint=heading_hint(lines, self._named, self.text, self.meter),
        )

    def _rewritten(self) -> RecordError:
        return RecordError(
            f"{self.name}: the file was rewritten while the trial ran",
            hint="let the program of the meter append to its file for as long as the campaign runs",
        )


def _trimmed(cells: Sequence[str], least: int) -> int:
    """How many cells a row has without empty ones at its end, of which `least` count."""
    width = len(cells)
    while width > least and not cells[width - 1]:
        width -= 1
    return width
