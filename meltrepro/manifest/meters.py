"""External power meters in a manifest."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from meltrepro.manifest.base import Place, Strict, added


def plain(text: str) -> str:
    """A heading as it is compared: one form of each character (U+00B5 is U+03BC), single spaces, none around it."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def place_of(heading: str) -> int | None:
    """Index of a column that is named by its place: `#1` is the first."""
    found = re.fullmatch(r"#([1-9][0-9]{0,3})", heading)
    return int(found[1]) - 1 if found else None


def _is_encoding(name: str) -> str:
    try:
        same = "1,;\t\n".encode(name) == b"1,;\t\n"
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"expected an encoding of text, such as cp1252 or utf-16: {error}") from error
    if not same and not name.lower().replace("_", "-").startswith(("utf-16", "utf-8")):
        raise ValueError(f"expected an encoding with the digits of ASCII, or utf-16, got {name!r}")
    return name


def _is_time_format(text: str) -> str:
    try:
        now = datetime(2026, 1, 2, 3, 4, 5).strftime(text)
        if text != ISO and (now == text or not datetime.strptime(now, text)):
            raise ValueError("it has no fields")
    except (ValueError, re.error) as error:
        raise ValueError(f"expected {ISO} or a format such as '%d.%m.%Y %H:%M:%S': {error}") from error
    return text


ISO = "iso"
Heading = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$")]
"""Of a column of a CSV file, or its place (`#1`); cells are read without the spaces around them."""
Delimiter = Annotated[str, StringConstraints(pattern=r'^[^"\r\n]$')]
Encoding = Annotated[str, StringConstraints(max_length=40), AfterValidator(_is_encoding)]
TimeFormat = Annotated[str, StringConstraints(max_length=200), AfterValidator(_is_time_format)]
Zone = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^(UTC|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?|[A-Za-z][A-Za-z0-9_+/-]*)$"),
]


class SyncMark(Strict):
    """Planned loads before and after the conversations, which a power meter sees."""

    pulses_ms: list[Annotated[int, Field(ge=1, le=60000)]] = Field(
        default=[1500, 500, 1000],
        min_length=2,
        description="How long each load lasts, two at least; unequal ones are found surely.",
    )
    rest_ms: int = Field(1000, ge=1, le=60000, description="Rest before, between and after them.")


MeterUnit = Literal[
    "W", "mW", "uW", "kW", "A", "mA", "uA", "V", "mV", "J", "mJ", "uJ", "Wh", "mWh", "kWh", "C", "mAh", "Ah", "degC"
]  # fmt: skip
_CURRENT, _VOLTAGE, _CHARGE = ("A", "mA", "uA"), ("V", "mV"), ("C", "mAh", "Ah")


class Meter(Strict):
    """An external meter, by the CSV file that its program writes while trials run, or that was recorded as a whole."""

    file: Place = Field(description="Path of the file, relative to the manifest.")
    time: Heading = Field(description="Heading of the column with the time of each sample, or its place: '#1'.")
    time_unit: Literal["s", "ms", "us", "ns"] = Field("s", description="Unit of that column.")
    date: Heading | None = added(None, description="Heading of the column with the date, where it stands apart.")
    time_format: TimeFormat | None = added(
        None,
        description="How dates and times of day are written, where the column holds no numbers: iso, or a format of strptime "
        "such as '%d.%m.%Y %H:%M:%S'; fractions of seconds are read in either case.",
    )
    time_zone: Zone | None = added(
        None, description="Whose time of day that is, where the file does not say: UTC, +02:00, Europe/Berlin."
    )
    time_offset_s: float = added(0.0, ge=-1e9, le=1e9, description="Added to every time; makes negative ones positive.")
    clock: Literal["own", "host", "device"] = Field(
        "own",
        description="Whose clock that column shows: one of its own, which the sync mark aligns; Unix time of the machine that "
        "runs meltrepro; the device's CLOCK_MONOTONIC.",
    )
    clock_bound_s: float = Field(
        0, ge=0, le=3600, description="How far a clock that should show the time of host or device may be from it."
    )
    columns: dict[Heading, MeterUnit] = Field(
        min_length=1,
        description="Heading of each column to read, with its unit. Several of power, or of energy, add up; of current, voltage "
        "and charge there may be one each.",
    )
    delimiter: Delimiter = Field(
        ",", description="What separates the columns; where it is a space, any number of them."
    )
    decimal: Literal[".", ","] = added(".", description="The decimal sign.")
    encoding: Encoding | None = added(
        None, description="How text is encoded; where absent, as the file's first bytes say, UTF-8 or Windows-1252."
    )
    refresh_s: float | None = Field(
        None,
        gt=1e-6,
        le=3600,
        description="How often the meter has a new value, where that is less often than it writes one.",
    )
    linger_s: float = Field(
        1, ge=0, le=60, description="How long after a trial to wait until the samples of its end are in the file."
    )
    sync_mark: SyncMark = SyncMark()

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        for quantity, units in (("current", _CURRENT), ("voltage", _VOLTAGE), ("charge", _CHARGE)):
            found = [heading for heading, unit in self.columns.items() if unit in units]
            if len(found) > 1:
                several = ", ".join(map(repr, found))
                raise ValueError(
                    f"expected one column of {quantity} at most, got {several}: rails add up in W or J only"
                )
        self._check_times()
        names = list(map(plain, self.columns))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"expected one unit a column, got {twice!r} twice")
        own = self.clock == "own"
        if set(self.columns.values()) <= {*_VOLTAGE, "degC", *(_CHARGE if own else ())}:
            needed = "current (A), in which the sync mark is seen" if own else "current (A) or charge (C)"
            raise ValueError(f"expected a column of power (W), energy (J), {needed}")
        if own and self.clock_bound_s:
            raise ValueError("expected no clock_bound_s with clock: own, of which the sync mark says how far it is off")
        if not own and self.sync_mark != SyncMark():
            raise ValueError(f"expected no sync_mark with clock: {self.clock}, which needs none")
        return self

    def _check_times(self) -> None:
        form = self.time_format
        if form is None:
            extra = next((name for name in ("date", "time_zone") if getattr(self, name) is not None), None)
            if extra is not None:
                raise ValueError(f"expected time_format with {extra}: without it times are numbers")
            return
        if self.time_unit != "s":
            raise ValueError("expected no time_unit with time_format")
        if self.clock == "device":
            raise ValueError("expected no time_format with clock: device, which has no dates")
        dated = form == ISO or re.search("%[YyGcx]", form) is not None
        if self.clock == "host" and not dated:
            raise ValueError("expected dates with clock: host; times of day alone are a clock of its own (clock: own)")
        if self.clock == "host" and self.time_zone is None and form != ISO and "%z" not in form:
            raise ValueError("expected time_zone with clock: host, such as UTC, +02:00 or Europe/Berlin")
