"""A trial as a native Perfetto trace: phases, tokens, operators, memory and every sampled channel on one time line.

Opens in https://ui.perfetto.dev, which works on the file alone, in the browser. Times are the device's monotonic clock;
a clock snapshot lets Perfetto show wall time too. The same trial gives the same bytes. `perfetto` is imported when a
trace is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from meltrepro.record.samples import Recording
from meltrepro.record.trace import Span, Trace, Turn

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

SUFFIX = ".perfetto-trace"
_REALTIME, _MONOTONIC, _BOOTTIME = 1, 3, 6
_SEQUENCE = 1
_UNITS = {"degC": "°C"}
"""Where Perfetto's users write a unit differently."""


def perfetto_trace(trace: Trace, recordings: Sequence[Recording], name: str) -> bytes:
    """The content of a `.perfetto-trace` file, from events and samples on one clock; `name` is that of the trial."""
    writer = _Writer(trace, name)
    writer.phases()
    writer.tokens()
    writer.operators()
    writer.memory()
    for recording in recordings:
        writer.samples(recording)
    return writer.finish()


class _Writer:
    def __init__(self, trace: Trace, name: str) -> None:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
        from perfetto.trace_builder.proto_builder import TraceProtoBuilder

        self._trace = trace
        self._name = name
        self._builder = TraceProtoBuilder()
        self._kinds = TrackEvent
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._clocks()
        self._root = self._process()

    # -- what is shown --------------------------------------------------------------------------------------------

    def phases(self) -> None:
        """Loading, warm-up, and conversation > turn > prefill, generation; pulses of sync marks."""
        trace = self._trace
        track = self._track("phases")
        self._slice(track, "load", Span(trace.load.begin_ns, trace.load.end_ns), bytes=trace.load.model_bytes)
        if trace.warmup is not None:
            self._slice(track, "warm-up", trace.warmup)
        for pulse in trace.pulses:
            self._slice(track, "sync pulse", pulse)
        for conversation in trace.conversations:
            self._begin(track, f"conversation {conversation.index}", conversation.begin_ns)
            for turn in conversation.turns:
                self._turn(track, turn)
            self._end(track, conversation.end_ns)

    def tokens(self) -> None:
        """Each token, from the one before it on."""
        track = self._track("tokens")
        for turn in self._trace.turns:
            if turn.prefill is not None and turn.token_ns:
                begins = (turn.prefill.end_ns, *turn.token_ns)
                for i, (begin_ns, end_ns) in enumerate(zip(begins, turn.token_ns, strict=False)):
                    self._slice(track, f"token {i}", Span(begin_ns, end_ns), id=turn.token_ids[i])

    def operators(self) -> None:
        """The operators of one call of the decoder per phase, of a profiled trial."""
        for phase in sorted({node.phase for node in self._trace.nodes}):
            track = self._track(f"operators, {phase}")
            for node in self._trace.nodes:
                if node.phase == phase:
                    self._slice(track, f"{node.name} {node.module}".rstrip(), node.span)

    def memory(self) -> None:
        """What the runner read of itself between the turns."""
        for field in ("rss_anon", "rss_file", "swap"):
            readings = [(m.t_ns, getattr(m, field)) for m in self._trace.memory if getattr(m, field) is not None]
            if readings:
                self._counter(f"runner {field}", "B", readings)

    def samples(self, recording: Recording) -> None:
        """Every channel as a counter with its unit, and the faults of channels.

        What a meter saw before the device's clock began is left out: a trace has no time before 0.
        """
        for series in recording.series:
            readings = [(t_ns, value) for t_ns, value in zip(series.t_ns, series.values, strict=True) if t_ns >= 0]
            if readings:
                self._counter(series.channel.name, _UNITS.get(series.channel.unit, series.channel.unit), readings)
        faults = [fault for fault in recording.faults if fault.t_ns >= 0]
        if faults:
            track = self._track("faults of sensors")
            for fault in faults:
                name = f"{recording.header.channels[fault.channel].name} {fault.kind}"
                self._slice(track, name, Span(fault.t_ns, fault.t_ns), detail=fault.detail)

    # -- how it is written ----------------------------------------------------------------------------------------

    def finish(self) -> bytes:
        """All events in the order of their times: slices nest by it."""
        for _, _, write in sorted(self._events, key=lambda event: event[:2]):
            write()
        return bytes(self._builder.serialize())

    def _turn(self, track: int, turn: Turn) -> None:
        self._begin(
            track, f"turn {turn.index}", turn.begin_ns, stop=turn.stop, prompt=turn.n_prompt, generated=turn.n_gen
        )
        if turn.prefill is not None:
            self._slice(track, "prefill", turn.prefill, tokens=turn.n_prompt)
            if turn.token_ns:
                self._slice(track, "generation", Span(turn.prefill.end_ns, turn.token_ns[-1]), tokens=turn.n_gen)
        self._end(track, turn.end_ns)

    def _clocks(self) -> None:
        hello = self._trace.hello
        packet = self._builder.add_packet()
        packet.clock_snapshot.primary_trace_clock = _MONOTONIC
        for clock, t in ((_MONOTONIC, hello.t_ns), (_BOOTTIME, hello.t_ns), (_REALTIME, hello.wall_ns)):
            entry = packet.clock_snapshot.clocks.add()
            entry.clock_id, entry.timestamp = clock, t
        self._sequenced(packet)

    def _process(self) -> int:
        hello = self._trace.hello
        uuid = self._uuid("process")
        descriptor = self._sequenced(self._builder.add_packet()).track_descriptor
        descriptor.uuid = uuid
        descriptor.process.pid = hello.pid
        descriptor.process.process_name = f"{self._name} ({hello.framework} {hello.commit[:8]}, {hello.isa})"
        return uuid

    def _track(self, name: str) -> int:
        descriptor = self._sequenced(self._builder.add_packet()).track_descriptor
        descriptor.uuid, descriptor.parent_uuid, descriptor.name = self._uuid(name), self._root, name
        return int(descriptor.uuid)

    def _counter(self, name: str, unit: str, readings: Sequence[tuple[int, float]]) -> None:
        descriptor = self._sequenced(self._builder.add_packet()).track_descriptor
        uuid = self._uuid(f"counter {name}")
        descriptor.uuid, descriptor.parent_uuid, descriptor.name = uuid, self._root, name
        descriptor.counter.unit_name = unit
        for t_ns, value in readings:
            self._at(t_ns, lambda t_ns=t_ns, value=value: self._value(uuid, t_ns, value))  # type: ignore[misc]

    def _value(self, uuid: int, t_ns: int, value: float) -> None:
        event = self._event(t_ns).track_event
        event.type, event.track_uuid, event.double_counter_value = self._kinds.TYPE_COUNTER, uuid, value

    def _slice(self, track: int, name: str, span: Span, **details: object) -> None:
        self._begin(track, name, span.begin_ns, **details)
        self._end(track, span.end_ns)

    def _begin(self, track: int, name: str, t_ns: int, **details: object) -> None:
        def write() -> None:
            event = self._event(t_ns).track_event
            event.type, event.track_uuid, event.name = self._kinds.TYPE_SLICE_BEGIN, track, name
            for key, value in details.items():
                annotation = event.debug_annotations.add()
                annotation.name = key
                if isinstance(value, int):
                    annotation.int_value = value
                else:
                    annotation.string_value = str(value)

        self._at(t_ns, write)

    def _end(self, track: int, t_ns: int) -> None:
        def write() -> None:
            event = self._event(t_ns).track_event
            event.type, event.track_uuid = self._kinds.TYPE_SLICE_END, track

        self._at(t_ns, write)

    def _at(self, t_ns: int, write: Callable[[], None]) -> None:
        # Events of one moment stay in the order in which they were added: a slice begins before it ends.
        self._events.append((t_ns, len(self._events), write))

    def _event(self, t_ns: int) -> TracePacket:
        packet = self._sequenced(self._builder.add_packet())
        packet.timestamp, packet.timestamp_clock_id = t_ns, _MONOTONIC
        return packet

    def _sequenced(self, packet: TracePacket) -> TracePacket:
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    def _uuid(self, name: str) -> int:
        """The same for the same trial: 63 bits, never 0."""
        return int.from_bytes(sha256(f"{self._name}/{name}".encode()).digest()[:8], "big") >> 1 | 1
