"""Valid samples with something changed, so that what lies behind the first check is reached too."""

from __future__ import annotations

import json
import random
import re

from tests.support.strange import VALUES, strange

_WORDS = (
    *(b"-1", b"0", b"9" * 30, b"9" * 5000, b"1e999", b"nan", b"-inf", b"0x10", b"1_0", "²".encode(), "٣".encode()),
    *(b"\xff", b"\0", b"\r", b"\n", b"\n\n", b"\t", b" ", b"\xed\xa0\x80", "\u2028".encode(), b"\x1b[2J"),
    *(
        b"../..",
        b"/",
        b"~nobody-at-all/x",
        b"a" * 300,
        b"[" * 3000,
        b"{",
        b"*a",
        b"&a [*a]",
        b"!!int x",
        b"<<: *b",
        b"%",
    ),
    *(
        b"http://[",
        b"://",
        b":99999",
        b"@",
        b"=",
        b"''",
        b'"',
        b"2024-99-99",
        b"%s",
        b"${HOME}",
        b"%d%%",
        b"|1|",
        b"\\",
    ),
)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutate(sample: bytes, form: str, rng: random.Random) -> bytes:
    """A sample of a form (`json`, `text`, `bytes`) with one to four changes."""
    changes = rng.choice([1, 1, 2, 4])
    if form == "json" and rng.random() < 0.8:
        return _json(sample, rng, changes)
    for _ in range(changes):
        sample = _bytes(sample, rng) if form == "bytes" else _text(sample, rng)
    return sample


def _json(sample: bytes, rng: random.Random, changes: int) -> bytes:
    try:
        return strange(json.loads(sample), rng, changes).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        pass
    lines = sample.splitlines()
    place = rng.choice([0, rng.randrange(len(lines))]) if lines else 0
    try:
        lines[place] = strange(json.loads(lines[place]), rng, changes).encode("utf-8", "surrogatepass")
    except (ValueError, IndexError, RecursionError):
        return _text(sample, rng)
    return b"\n".join(lines) + b"\n"


def _text(sample: bytes, rng: random.Random) -> bytes:
    """Words replaced, lines moved, dropped and doubled; now and then a byte."""
    way = rng.random()
    lines = sample.split(b"\n")
    at = rng.randrange(len(lines))
    if way < 0.1:
        del lines[at]
    elif way < 0.2:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif way < 0.3:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif way < 0.9:
        places = list(re.finditer(rb"[\w.+-]+|[^\w\s]", lines[at]))
        word = rng.choice(_WORDS) if rng.random() < 0.7 else rng.choice(VALUES).encode("utf-8", "surrogatepass")
        span = rng.choice(places).span() if places else (0, 0)
        lines[at] = lines[at][: span[0]] + word + lines[at][rng.choice(span) :]
    else:
        return _bytes(sample, rng)
    return b"\n".join(lines)


def _bytes(sample: bytes, rng: random.Random) -> bytes:
    """A number in place of another, a byte changed, something cut out or doubled."""
    data, way = bytearray(sample), rng.random()
    at = rng.randrange(len(data) + 1)
    if way < 0.35:
        size = rng.choice([1, 2, 4, 8])
        data[at : at + size] = (rng.choice(_NUMBERS) % (1 << (8 * size))).to_bytes(size, "little")
    elif way < 0.7:
        data[at : at + 1] = bytes([rng.randrange(256)])
    elif way < 0.85:
        del data[at : at + rng.choice([1, 4, 64, len(data)])]
    else:
        data[at:at] = data[at : at + rng.choice([1, 8, 64, 512])]
    return bytes(data)
