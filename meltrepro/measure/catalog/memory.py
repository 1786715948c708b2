"""How much memory, and of which kind."""

from __future__ import annotations

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric, generation_ns


def _kv_bytes(facts: Facts) -> float:
    if facts.trace.context.kv_bytes is None:
        raise NoValue("the framework does not say")
    return float(facts.trace.context.kv_bytes)


def _bandwidth(facts: Facts) -> float:
    """Every decoding reads the weights once, keys and values of the positions before its token, and half of its own.

    Its own are written within the decoding, and read by no more than the attention that follows; that counts as half.
    """
    per_position = _kv_bytes(facts) / facts.trace.context.n_ctx
    decodings = sum(turn.steps for turn in facts.flowing)
    # After the last of d decodings n_past positions are filled. Before the k-th, n_past - d + k - 1 were; with the half, the
    # mean over k = 1 ... d is n_past - d / 2.
    positions = sum(turn.steps * (turn.n_past - (turn.n_gen - 1) / 2) for turn in facts.flowing)
    moved = decodings * facts.trace.load.model_bytes + positions * per_position
    return moved / sum(map(generation_ns, facts.flowing)) * 1e9


MEMORY = (
    Metric(
        name="peak_memory_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="most resident memory at any time, weights included",
        formula="largest hwm",
        source="mem",
        invalid_when="the device does not say",
        compute=lambda facts: float(max(facts.memory(lambda memory: memory.hwm))),
    ),
    Metric(
        name="rss_anon_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="steady memory of the process's own (KV cache, buffers, weights that are not mapped)",
        formula="rss_anon after the last turn",
        source="mem with phase turn",
        invalid_when="no turn was held, or the device does not say",
        compute=lambda facts: float(facts.memory(lambda memory: memory.rss_anon, "turn")[-1]),
    ),
    Metric(
        name="rss_file_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="steady memory that files back (mapped weights, program)",
        formula="rss_file after the last turn",
        source="mem with phase turn",
        invalid_when="no turn was held, or the device does not say",
        compute=lambda facts: float(facts.memory(lambda memory: memory.rss_file, "turn")[-1]),
    ),
    Metric(
        name="swap_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="memory of the process that was swapped out",
        formula="largest swap",
        source="mem",
        invalid_when="the device does not say",
        compute=lambda facts: float(max(facts.memory(lambda memory: memory.swap))),
    ),
    Metric(
        name="model_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="size of the model file",
        formula="model_bytes",
        source="load_end",
        invalid_when="never",
        compute=lambda facts: float(facts.trace.load.model_bytes),
    ),
    Metric(
        name="kv_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="size of the KV cache for the whole context",
        formula="kv_bytes",
        source="context",
        invalid_when="the framework does not say",
        compute=_kv_bytes,
    ),
    Metric(
        name="bandwidth_bytes_per_s",
        unit="bytes/s",
        phase="generation",
        better="higher",
        meaning="effective memory bandwidth: bytes that generation has to read, over the time that it takes",
        formula="sum over decodings of (model_bytes + kv_bytes / n_ctx x (positions before the token + 1/2)) / sum of"
        " t(last token) - t(first token); the half is the token's own position, which is written; the whole file counts, also an embedding of which one row is read",
        source="load_end, context, token, turn_end",
        invalid_when="no turn has two tokens with time between them, or the framework does not say kv_bytes",
        compute=_bandwidth,
    ),
)
