"""Every token of a trial as one table, for those who want more than the curve that MLflow draws of it."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from meltrepro.record.trace import Trace


def token_table(trace: Trace) -> bytes:
    """Parquet with a row a token: conversation, turn, token, id, Unix time in ns, and ms since the one before it in its turn."""
    turns = [(conversation.index, turn) for conversation in trace.conversations for turn in conversation.turns]
    lengths = [len(turn.token_ns) for _, turn in turns]
    total = sum(lengths)
    times = np.fromiter(chain.from_iterable(turn.token_ns for _, turn in turns), np.int64, total)
    gaps = np.diff(times, prepend=times[:1]) / 1e6
    number = np.arange(total) - np.repeat(np.cumsum([0, *lengths])[:-1], lengths)

    def each(values: list[int]) -> pa.Array:
        return pa.array(np.repeat(np.array(values, np.int32), lengths))

    table = pa.table(
        {
            "conversation": each([conversation for conversation, _ in turns]),
            "turn": each([turn.index for _, turn in turns]),
            "token": pa.array(number.astype(np.int32)),
            "id": pa.array(np.fromiter(chain.from_iterable(turn.token_ids for _, turn in turns), np.int32, total)),
            "time_ns": pa.array(times + trace.wall_ns(0)),
            "gap_ms": pa.array(gaps, mask=number == 0),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
