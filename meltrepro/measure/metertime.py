"""The times in a meter's file: numbers that count from anywhere, or dates and times of day. In nanoseconds, without rounding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import ISO, Meter
from meltrepro.measure.metertext import number, number_hint

_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NS = 86_400 * 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_YEAR = datetime(1900, 1, 1, tzinfo=UTC)
"""What a time of day is read as."""
_FRACTION = re.compile(r"(?<=:[0-9]{2})[.,]([0-9]{1,9})[0-9]*")
_USUAL = (
    *("%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"),
    *("%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M", "%H:%M:%S", "%I:%M:%S %p", "%M:%S"),
)
_NAME_IT = "name the column of the times in targets.NAME.meter.time; if it is the right one, the line is damaged"


class NoTime(Exception):
    """A cell holds no time of the form that the manifest says; `hint` is what it may be instead."""

    def __init__(self, hint: str | None) -> None:
        super().__init__(hint)
        self.hint = hint or _NAME_IT
        self.known = hint is not None


class Times:
    """Reads one time after the other; raises `RecordError` for a time zone that nobody knows."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._zone = _zone(meter.time_zone) if meter.time_zone else None
        self._offset_ns = round(Decimal(repr(meter.time_offset_s)) * 10**9)
        self._days_ns = 0

    def read(self, text: str, last_ns: int | None) -> int:
        """Nanoseconds on the meter's clock; `last_ns` is the time before. Raises `NoTime`."""
        form, unit = self._meter.time_format, self._meter.time_unit
        if form is not None:
            before_ns = None if last_ns is None else last_ns - self._offset_ns
            return self._written(" ".join(text.split()), form, before_ns) + self._offset_ns
        if number(text, self._meter.decimal) is None:
            raise NoTime(_format_hint(text) or number_hint(text, self._meter))
        exact = text.strip().replace("\u2212", "-").replace(",", ".")
        return round(Decimal(exact) * _NS[unit]) + self._offset_ns

    def _written(self, text: str, form: str, last_ns: int | None) -> int:
        found = _FRACTION.search(text)
        fraction_ns = int(found[1].ljust(9, "0")) if found else 0
        bare = form.replace(".%f", "").replace(",%f", "")
        text, forms = (_FRACTION.sub("", text, count=1), (bare,)) if found else (text, (form, bare))
        when = next((each for each in (_parsed(text, form) for form in forms) if each is not None), None)
        if when is None:
            raise NoTime(_format_hint(text))
        if when.year == _NO_YEAR.year:
            passed_ns = _ns(when.replace(tzinfo=UTC)) - _ns(_NO_YEAR) + fraction_ns + self._days_ns
            if when.date() == _NO_YEAR.date() and last_ns is not None and passed_ns < last_ns - _DAY_NS // 2:
                self._days_ns += _DAY_NS  # midnight has passed
                passed_ns += _DAY_NS
            return passed_ns
        if when.tzinfo is None:
            if self._zone is None and self._meter.clock == "host":
                raise NoTime("say whose time of day it is: targets.NAME.meter.time_zone: UTC, +02:00 or Europe/Berlin")
            when = when.replace(tzinfo=self._zone or UTC)
        t_ns = _ns(when) + fraction_ns
        if last_ns is not None and t_ns < last_ns:  # an hour that comes twice, when summer time ends
            again_ns = _ns(when.replace(fold=1)) + fraction_ns
            return again_ns if again_ns >= last_ns else t_ns
        return t_ns


def _parsed(text: str, form: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if form == ISO else datetime.strptime(text, form)
    except ValueError:
        return None


def _ns(when: datetime) -> int:
    passed = when.astimezone(UTC) - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + passed.microseconds * 1000


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if name[0] in "+-":
        digits = name[1:].replace(":", "").ljust(4, "0")
        east = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return timezone(east if name[0] == "+" else -east)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RecordError(
            f"targets.NAME.meter.time_zone: this machine knows no time zone {name!r}",
            hint="write UTC, an offset such as +02:00 or a name such as Europe/Berlin (package tzdata)",
        ) from error


def _format_hint(text: str) -> str | None:
    """The formats in which a cell could be read, as the key to set."""
    text = _FRACTION.sub("", " ".join(text.split()), count=1)
    fitting: Sequence[str] = [form for form in _USUAL if _parsed(text, form) is not None]
    if len(text) > 8 and _parsed(text, ISO) is not None:
        fitting = [ISO, *fitting]
    if not fitting:
        return None
    return (
        f"it seems to be a date or a time of day: set targets.NAME.meter.time_format: {' or '.join(map(repr, fitting))}"
    )
