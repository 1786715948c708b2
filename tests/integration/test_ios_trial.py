"""A trial as campaigns hold it, with the real runner and a real model, in the app of a virtual iPhone."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meltrepro.build.model import Artifact
from meltrepro.campaign.trial import CellRun, run_trial
from meltrepro.manifest.protocol import Gates, Measure, Want
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record.events import read_trace
from meltrepro.record.layout import Trial, TrialKind
from meltrepro.record.samples import read_samples
from meltrepro.record.trial import ClockReadings, Request, RequestSampling, TrialState
from meltrepro.targets.base import RUNNER, Target
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget
from tests.support.ios_targets import paired, target, virtual_iphone

pytestmark = pytest.mark.machine


def request(prompt: str) -> Request:
    sampling = RequestSampling(greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=1)
    return Request(
        model="",
        context=256,
        threads=2,
        batch=64,
        max_tokens=24,
        ignore_eos=True,
        sampling=sampling,
        conversations=[[prompt]],
    )


def cell(there: Target, bundle: Artifact, model: Artifact) -> CellRun:
    return CellRun(
        bundle=bundle,
        model=model,
        runner_digest=bundle.digest,
        request=request("<|im_start|>user\nName three rivers.<|im_end|>\n<|im_start|>assistant\n"),
        target=there,
        facts=there.identify(),
        timeout_s=120,
        measure=Measure(memory=Want.required, temperature=Want.required),
        gates=Gates(temperature_c=60),
        abort_above_c=80,
        sensor_plan=sensor_plan(there.sources(), 20),
    )


def artifact(path: Path, kind: Any) -> Artifact:
    content = path if path.is_file() else path / RUNNER
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(kind, kind, digest, digest, path, path, content.stat().st_size)


def test_a_trial_of_a_real_model(runner_bundles: Mapping[str, Path], smollm2: Path, tmp_path: Path) -> None:
    names = [name for name in runner_bundles if "2026" in name and "armv8" not in name]
    if not names or platform.machine() != "x86_64":
        pytest.skip("apps of the virtual iPhone are programs of this machine, and there is no runner for it")
    bundle, model = artifact(runner_bundles[names[0]], "bundle"), artifact(smollm2, "model")
    trial = Trial("m/q/f/phone/w", TrialKind.repetition, 0)
    with virtual_iphone(tmp_path / "phone", bundle.path / RUNNER) as device:
        phone = paired(device, tmp_path / "pairings")
        ended = run_trial(cell(target(phone), bundle, model), trial, 1, tmp_path / "there")
    assert ended.outcome.state is TrialState.ok, ended.outcome.reason
    assert ended.outcome.virtual
    assert ended.metrics["generation_tps"] > 0
    assert ended.metrics["peak_memory_bytes"] > 50e6
    recording = read_samples(tmp_path / "there" / "samples.jsonl")
    footprint = recording.named("process.footprint")
    assert footprint is not None
    trace = read_trace(tmp_path / "there" / "events.jsonl")
    assert footprint.t_ns[0] < trace.done_ns and footprint.t_ns[-1] > trace.hello.t_ns, "on the clock of the events"
    clocks = ClockReadings.model_validate_json((tmp_path / "there" / "clocks.json").read_bytes())
    assert min(received - sent for sent, _, received in clocks.device_before) < 50e6
    state = json.loads((tmp_path / "there" / "device.json").read_text())
    assert state["before"]["battery"]["percent"] > 0
    # The same binary and the same model, here: token by token the same answer.
    host = HostTarget(HostOptions(sandbox="bare"), disk=tmp_path, owner=str(tmp_path / "owner"))
    assert run_trial(cell_of_host(host, bundle, model), trial, 1, tmp_path / "here").outcome.state is TrialState.ok
    here = read_trace(tmp_path / "here" / "events.jsonl")
    assert tokens(trace) == tokens(here)


def cell_of_host(host: HostTarget, bundle: Artifact, model: Artifact) -> CellRun:
    run = cell(host, bundle, model)
    return CellRun(**{**vars(run), "measure": Measure(), "gates": Gates(), "abort_above_c": None, "sensor_plan": None})


def tokens(trace: Any) -> list[tuple[int, ...]]:
    return [turn.token_ids for conversation in trace.conversations for turn in conversation.turns]
