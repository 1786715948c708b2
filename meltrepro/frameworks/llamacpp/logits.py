"""The file in which llama.cpp's scorer keeps what a model expects of a text, which others are compared with.

The magic, then window, vocabulary and number of windows as int32, the text's tokens as int32, and for every token that is
scored two floats and one uint16 for each entry of the vocabulary, all together of an even number. The scorer does not
look whether its writes succeed, so that on a full disk it ends well and leaves a part.
"""

from __future__ import annotations

import struct
from pathlib import Path

from meltrepro.errors import BuildError

_HEAD = struct.Struct("<8s3i")
_MAGIC = b"_logits_"


def check(path: Path, context: int, chunks: int | None) -> None:
    """Raise `BuildError` where the file is not whole, or not of this window in tokens and this many windows."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise BuildError(f"what the scorer wrote is no file of expectations: it has {path.stat().st_size} bytes")
    _, window, vocabulary, windows = _HEAD.unpack(head)
    if window != context or windows < 1 or vocabulary < 1 or (chunks is not None and windows != chunks):
        wanted = f"{chunks or 'all'} windows of {context} tokens"
        raise BuildError(f"the scorer wrote {windows} windows of {window} tokens, and was asked for {wanted}")
    scored = context - 1 - context // 2
    expected = _HEAD.size + windows * (4 * context + 2 * scored * (vocabulary + vocabulary % 2 + 4))
    size = path.stat().st_size
    if size != expected:
        raise BuildError(
            f"what the scorer wrote is not whole: {size} bytes, {expected} are expected",
            hint="see whether the disk of the store has room, and run the same command again",
        )
