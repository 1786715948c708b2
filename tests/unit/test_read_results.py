"""The table of results, read from campaign folders whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import RecordError
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import MANIFEST
from meltrepro.report.read import PENDING, read_results
from meltrepro.report.results import CellResult
from meltrepro.studies.melt.findings.cells import requantized_from
from meltrepro.track.content import cell_params
from tests.support.campaigns import MS, START_NS, Cell, Trial, Turn, build_campaign, score_trial

TRUTH = Trial(
    conversations=[
        [
            Turn(prompt_tokens=20, prefill_ns=100 * MS, gaps_ns=(20 * MS,) * 9),
            Turn(prompt_tokens=10, prefill_ns=50 * MS, gaps_ns=(25 * MS,) * 9),
        ],
        [Turn(prompt_tokens=8, prefill_ns=40 * MS, tokens=1, gaps_ns=())],
    ]
)


def read(folder: Path, **options: Any) -> tuple[CellResult, ...]:
    return read_results([read_campaign(folder, **options)]).cells


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "campaign.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    return folder


def test_limits_and_settings_of_replays_that_are_not_the_defaults_are_options(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0")])
    (usual,) = read(folder)
    assert not [name for name in usual.options if name.startswith(("measure.", "replay."))]
    declared = {"cpu_pressure": 1, "truncated": True, "throttle_events": None, "noise": 0.1}
    place = folder / MANIFEST
    manifest = {**json.loads(place.read_bytes()), "measure": {"limits": declared}, "replay": {"session_cv": 0.2}}
    place.write_text(json.dumps(manifest))
    (cell,) = read(folder)
    more: dict[str, object] = {f"measure.limits.{name}": declared[name] for name in ("cpu_pressure", "truncated")}
    more |= {"measure.limits.throttle_events": "null", "replay.session_cv": 0.2}
    assert cell.options == {**usual.options, **more}
    (record,) = read_campaign(folder).cells
    assert cell_params(record)["measure.limits.throttle_events"] == "null"


def test_what_a_cell_measured(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0", trial=TRUTH)], repetitions=2)
    results = read_results([read_campaign(folder)])
    (cell,) = results.cells
    assert dict(results.names) == {folder.name: "synthetic"}
    assert (cell.campaign, cell.state, cell.reason, cell.cause) == (folder.name, "measured", None, None)
    assert (cell.model, cell.quantization, cell.framework, cell.workload) == (
        "smollm2-135m",
        "q4_0",
        "llama.cpp",
        "chat",
    )
    assert (cell.device.name, cell.device.kind, cell.device.model, cell.device.virtual) == (
        "host",
        "host",
        "test",
        False,
    )
    assert (cell.model_bytes, cell.kv_bytes, cell.context) == (98_000_000, 23_000_000, 1024)
    assert cell.parameters == 134_515_008
    assert cell.metrics["generation_tps"].n == 2
    assert not cell.synthetic
    assert not cell.accelerated
    assert cell.temperatures == ()


def test_turns_of_every_repetition(tmp_path: Path) -> None:
    (cell,) = read(build_campaign(tmp_path, [Cell(trial=TRUTH)], repetitions=2))
    keys = [(turn.repetition, turn.conversation, turn.turn) for turn in cell.turns]
    assert keys == [(r, c, t) for r in (0, 1) for c, t in ((0, 0), (0, 1), (1, 0))]
    first, second, third = cell.turns[:3]
    assert first.began_s == 0
    assert second.began_s > 0.1 + 9 * 0.02
    assert (first.n_prompt, first.n_gen, first.n_past) == (20, 10, 29)
    assert first.prefill_tps == pytest.approx(200)
    assert first.generation_tps == pytest.approx(50)
    assert second.generation_tps == pytest.approx(40)
    assert second.n_past == 29 + 10 + 9
    assert third.generation_tps is None, "one token alone has no speed"


def test_cells_that_gave_nothing_say_why(tmp_path: Path) -> None:
    failing = {0: "out-of-memory: the kernel killed it\nlast words", 1: "out-of-memory: again"}
    cells = [Cell("q8_0", failing=failing), Cell("q4_0", repetitions=0), Cell("f16")]
    folder = build_campaign(tmp_path, cells, repetitions=2)
    skip = {"id": "smollm2-135m/f32/llama.cpp/host/chat", "reason": "needs 26.1 GB of memory, target host has 8.3 GB"}
    failed, pending, good, skipped = read(edited(folder, lambda document: document.update(skipped=[skip])))
    assert (failed.state, failed.cause) == ("failed", "out-of-memory")
    assert failed.reason == failing[0].splitlines()[0]
    assert (pending.state, pending.cause) == ("skipped", PENDING)
    assert good.state == "measured"
    assert (skipped.state, skipped.reason, skipped.cause) == ("skipped", skip["reason"], "memory")
    assert (skipped.model, skipped.quantization, skipped.workload) == ("smollm2-135m", "f32", "chat")
    assert skipped.device == good.device, "what is known of a device is known of its skipped cells too"
    assert skipped.release == "2024-02-27"
    assert all(not cell.metrics and not cell.turns for cell in (failed, pending, skipped))


def test_a_skipped_cell_of_a_device_that_nothing_ran_on(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()])
    skip = {"id": "smollm2-135m/q8_0/llama.cpp/phone/chat", "reason": "target phone could not be reached"}
    *_, skipped = read(edited(folder, lambda document: document.update(skipped=[skip])))
    assert (skipped.device.name, skipped.device.kind, skipped.cause) == ("phone", "unknown", "target")


def test_invalid_repetitions_are_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    cut = Trial(conversations=[[Turn(), Turn(fits=False)]])
    folder = build_campaign(tmp_path, [Cell(trial=cut)], repetitions=2)
    (cell,) = read(folder)
    assert (cell.state, cell.cause) == ("invalid", "truncated")
    assert cell.reason is not None
    assert not cell.metrics
    assert not cell.turns
    assert cell.kv_bytes == 23_000_000, "what was loaded is no less true"
    (believed,) = read(folder, with_invalid=True)
    assert believed.state == "measured"
    assert believed.metrics["generation_tps"].n == 2


def test_repetitions_that_do_not_agree_make_a_cell_invalid(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell(tokens_per_second=40)], repetitions=3)
    slow = build_campaign(tmp_path / "slow", [Cell(tokens_per_second=10)], repetitions=3)
    place = Path("cells", *Cell().id.split("/"), "r000", "events.jsonl")
    (folder / place).write_bytes((slow / place).read_bytes())
    (cell,) = read(folder)
    assert (cell.state, cell.cause) == ("invalid", "noisy")
    assert cell.metrics["generation_tps"].n == 3
    (believed,) = read(folder, with_invalid=True)
    assert believed.state == "measured"


def test_what_parameters_tell(tmp_path: Path) -> None:
    params = {
        "kind": "llama.cpp",
        "gpu_layers": 99,
        "synthetic": "true",
        "device.id": "host-1",
        "device.power_mode": "15W",
    }
    folder = build_campaign(tmp_path, [Cell()])
    edited(folder, lambda document: document["cells"][0]["params"].update(params | {"device.memory_bytes": 8 * 10**9}))
    (cell,) = read(folder)
    assert cell.accelerated
    assert not cell.synthetic
    assert (cell.device.id, cell.device.power_mode, cell.device.memory_bytes) == ("host-1", "15W", 8 * 10**9)


def test_made_up_weights_are_told_of_skipped_cells_too(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()])
    path = folder / "manifest.yaml"
    manifest = json.loads(path.read_bytes())
    manifest["models"]["smollm2-135m"]["source"] = {"synthetic": "tinyllama-1.1b"}
    path.write_text(json.dumps(manifest))
    skip = {"id": "smollm2-135m/f32/llama.cpp/host/chat", "reason": "needs 26.1 GB of memory, target host has 8.3 GB"}

    def change(document: dict[str, Any]) -> None:
        document["cells"][0]["synthetic"] = True
        document["skipped"] = [skip]

    cell, skipped = read(edited(folder, change))
    assert (cell.synthetic, skipped.synthetic) == (True, True)


def test_the_file_that_weights_were_made_from(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()])
    path = folder / "manifest.yaml"
    manifest = json.loads(path.read_bytes())
    for member, known in {"**/SmolLM2-135M-Instruct.Q4_1.gguf": "Q4_1", "**/SmolLM2-F16.gguf": None}.items():
        manifest["models"]["smollm2-135m"]["source"]["member"] = member
        path.write_text(json.dumps(manifest))
        assert requantized_from(read(folder)[0]) == known


def test_operators_of_the_profiled_trial(tmp_path: Path) -> None:
    (cell,) = read(build_campaign(tmp_path, [Cell(operators={"ffn_up": (30, 9000), "kq": (30, 1000)})]))
    assert set(cell.operators) == {"generation"}
    assert cell.operators["generation"].shares[0].time_share == pytest.approx(0.9)


def sampled(folder: Path, channels: dict[str, tuple[str, list[tuple[float, float]]]]) -> None:
    """Write samples (seconds since the runner began, value) into the first repetition."""
    place = folder.joinpath("cells", *Cell().id.split("/"), "r000", "samples.jsonl")
    header: dict[str, Any] = {"v": 1, "sampler": "linux", "clock": "monotonic", "rate_hz": 1.0, "overhead": None}
    header["channels"] = [
        {"name": name, "unit": unit, "kind": "gauge", "source": "test", "refresh_s": 1.0, "wraps_at": None}
        for name, (unit, _) in channels.items()
    ]
    lines: list[Any] = [header]
    for index, (_, samples) in enumerate(channels.values()):
        lines += [[START_NS + round(t_s * 1e9), index, value] for t_s, value in samples]
    lines.append({"end": START_NS + 10**12, "cpu_s": 0.1})
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_temperatures_are_the_hottest_sensor_since_the_first_turn(tmp_path: Path) -> None:
    long = Trial(conversations=[[Turn(gaps_ns=(1000 * MS,) * 4)]])
    folder = build_campaign(tmp_path, [Cell(trial=long)], repetitions=1)
    a = [(float(t), 30.0 + t) for t in range(6)]
    b = [(t + 0.5, 20.0 + 5 * t) for t in range(6)]
    still = {"temperature.zone4:PMIC-Die": 100.0, "temperature.c": 77.0, "temperature.d": -273.0}
    channels: dict[str, tuple[str, list[tuple[float, float]]]] = {
        "temperature.a": ("degC", a),
        "temperature.b": ("degC", b),
        "load": ("1", [(2, 99.0)]),
    }
    for name, celsius in still.items():
        channels[name] = ("degC", [(t + 0.25, celsius) for t in range(6)])
    sampled(folder, channels)
    (cell,) = read(folder, with_invalid=True)
    begin = cell.temperatures[0][0]
    assert 0 <= begin < 1, "what was read before the first turn is not shown"
    values = [value for _, value in cell.temperatures]
    assert values == [30, 31, 31, 32, 32, 33, 35, 35, 40]
    assert [t for t, _ in cell.temperatures] == sorted({t for t, _ in cell.temperatures})


def test_a_battery_tells_its_capacity_by_charge_and_level(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()], repetitions=1)
    sampled(folder, {"battery.charge": ("C", [(0, 14400.0)]), "battery.level": ("%", [(0, 80.0)])})
    (cell,) = read(folder, with_invalid=True)
    assert cell.device.battery_mah == pytest.approx(5000)
    sampled(folder, {"battery.charge": ("C", [(0, 14.4)]), "battery.level": ("%", [(0, 80.0)])})
    (cell,) = read(folder, with_invalid=True)
    assert cell.device.battery_mah is None, "5 mAh are another unit"


def test_scores_of_a_cell_of_questions(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()], repetitions=2, warmups=0)
    for trial in ("r000", "r001"):
        score_trial(folder, Cell(), trial, right=7, params={"bits_per_weight": 8.0})
    (cell,) = read(folder)
    assert (cell.state, cell.turns, cell.metrics) == ("measured", (), {})
    (score,) = cell.scores
    assert (score.task, score.k, score.n) == ("piqa", 7, 10)
    assert cell.parameters == cell.model_bytes


def test_scores_that_differ_between_repetitions_are_invalid(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell()], repetitions=2, warmups=0)
    score_trial(folder, Cell(), "r000", right=7)
    score_trial(folder, Cell(), "r001", right=6)
    (cell,) = read(folder)
    assert cell.state == "invalid"
    assert cell.reason is not None
    assert "repetitions differ" in cell.reason


def test_a_virtual_device_is_told(tmp_path: Path) -> None:
    (cell,) = read(build_campaign(tmp_path, [Cell()], virtual=True))
    assert cell.device.virtual


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_description_of_the_device_is_an_error(tmp_path: Path, content: bytes) -> None:
    folder = build_campaign(tmp_path, [Cell()], warmups=1)
    folder.joinpath("cells", *Cell().id.split("/"), "w000", "device.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"device\.json is damaged"):
        read(folder)


def test_campaigns_stay_in_order(tmp_path: Path) -> None:
    folders = [build_campaign(tmp_path, number=number) for number in (0, 1)]
    results = read_results([read_campaign(folder) for folder in folders])
    assert [cell.campaign for cell in results.cells] == [folder.name for folder in folders for _ in range(2)]
