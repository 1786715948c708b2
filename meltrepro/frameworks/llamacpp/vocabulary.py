"""Fabricated tokenizers for synthetic weights: of the kind and size that a shape's real model has, with made-up pieces.

No token is taken from anywhere: the pieces are single characters, common English words with everything that they begin
with, and combinations of letters in order until the vocabulary is full. Every piece is another piece and one character
more, which is how both tokenizers find it: what follows a space grows from its beginning for as long as it is a piece,
the letters that are left pair up. English text comes to some 1.5 tokens a word, near what real tokenizers make of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from string import ascii_lowercase

from meltrepro.manifest.shapes import ModelShape

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Kinds of tokens, as llama.cpp numbers them."""
_SPM_SPACE, _BPE_SPACE = "\u2581", "\u0120"
_PRINTABLE = tuple(chr(code) for code in range(33, 127))
_LETTERS_RANK = 1000
"""Pieces of letters alone come after all that begin with a space, so that words are taken from their beginning."""

_OF_PIECES = ("llama", "gemma", "gemma3")
"""Architectures whose tokenizers are of SentencePiece's kind."""

_COMMON = """
the of and to a in is that for it as was with be by on not he this are or his from at which but have an had they you were
there one all we can her has their what said if will each about how up out them then she many some so these would other
into more him two like time could no make than first been its who now people my made over did down only way find use may
water long little very after words called just where most know get through back much before go good new write our used me
man too any day same right look think also around another came come work three word must because does part even place well
such here take why things help put years different away again off went old number great tell men say small every found
still between name should home big give air line set own under read last never us left end along while might next sound
below saw something thought both few those always looked show large often together asked house world going want school
important until form food keep children feet land side without boy once animals life enough took sometimes four head above
kind began almost live page got earth need far hand high year mother light country father let night following picture being
study second eyes soon times story boys since white days ever paper hard near sentence better best across during today
however sure means knew try told young miles sun ways thing whole hear example heard several change answer room sea against
top turned learn point city play toward five using himself usually money seen car morning given question please explain
describe write list idea difference between computer language model create could summary email short explain recipe travel
"""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a model file has it."""

    kind: str
    """`llama` (SentencePiece with bytes) or `gpt2` (pairs of bytes)."""
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    """Which pairs are joined first; of `llama`."""
    merges: tuple[str, ...]
    """Pairs in the order in which they are joined; of `gpt2`."""
    bos: int
    eos: int
    unknown: int | None
    padding: int | None
    adds_bos: bool
    adds_space: bool


@lru_cache(maxsize=4)
def vocabulary(shape: ModelShape) -> Vocabulary:
    """The tokenizer of a shape; always the same one."""
    return _pieces(shape) if shape.arch in _OF_PIECES else _pairs(shape)


def _pieces(shape: ModelShape) -> Vocabulary:
    gemma = shape.arch != "llama"
    begin = ("<pad>", "<eos>", "<bos>", "<unk>") if gemma else ("<unk>", "<s>", "</s>")
    bytes_ = tuple(f"<0x{value:02X}>" for value in range(256))
    room = shape.vocabulary - len(begin) - len(bytes_) - len(shape.markers)
    pieces = _fill(_SPM_SPACE, (_SPM_SPACE, *_PRINTABLE), room)
    tokens = (*begin, *bytes_, *pieces, *shape.markers)
    types = [CONTROL] * len(begin) + [BYTE] * 256 + [NORMAL] * room + [CONTROL] * len(shape.markers)
    types[tokens.index("<unk>")] = UNKNOWN
    ranks = dict(zip(pieces, _ranks(pieces, _SPM_SPACE), strict=True))
    return Vocabulary(
        kind="llama",
        tokens=tokens,
        types=tuple(types),
        scores=tuple(-float(ranks.get(token, 0)) for token in tokens),
        merges=(),
        bos=tokens.index("<bos>" if gemma else "<s>"),
        eos=tokens.index("<eos>" if gemma else "</s>"),
        unknown=tokens.index("<unk>"),
        padding=0 if gemma else None,
        adds_bos=True,
        adds_space=not gemma,
    )


def _pairs(shape: ModelShape) -> Vocabulary:
    begin = ("<|endoftext|>", "<|padding|>")
    room = shape.vocabulary - len(begin) - len(shape.markers)
    pieces = _fill(_BPE_SPACE, _byte_symbols(), room)
    long = sorted(zip(_ranks(pieces, _BPE_SPACE), range(room), pieces, strict=True))
    return Vocabulary(
        kind="gpt2",
        tokens=(*begin, *pieces, *shape.markers),
        types=(CONTROL,) * len(begin) + (NORMAL,) * room + (CONTROL,) * len(shape.markers),
        scores=(),
        merges=tuple(f"{piece[:-1]} {piece[-1]}" for _, _, piece in long if len(piece) > 1),
        bos=0,
        eos=0,
        unknown=None,
        padding=1,
        adds_bos=False,
        adds_space=False,
    )


def _fill(space: str, single: Sequence[str], room: int) -> tuple[str, ...]:
    """`room` different pieces, each after the one that it is made of."""
    found = dict.fromkeys(single)
    for piece in _endless(space):
        if len(found) == room:
            break
        found[piece] = None
    return tuple(found)


def _endless(space: str) -> Iterator[str]:
    for word in _COMMON.split():
        for text in (word, word.capitalize()):
            for length in range(1, len(text) + 1):
                yield space + text[:length]
    for begin, length in (("", 2), (space, 1), (space, 2), ("", 3), (space, 3), ("", 4)):
        for letters in product(ascii_lowercase, repeat=length):
            yield begin + "".join(letters)


def _ranks(pieces: Sequence[str], space: str) -> Iterator[int]:
    for piece in pieces:
        yield len(piece) + (0 if piece.startswith(space) else _LETTERS_RANK)


def _byte_symbols() -> tuple[str, ...]:
    """The characters that stand for the 256 bytes in tokenizers of the kind of GPT-2: printable ones for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in plain]
    return tuple(map(chr, plain)) + tuple(chr(256 + index) for index in range(len(others)))
