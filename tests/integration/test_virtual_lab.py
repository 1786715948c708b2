"""The lab as its users have it: up, a campaign on host, phone, board and iPhone, another tool on the phone, down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from meltrepro.measure.records import CampaignRecord, CellRecord, read_campaign
from meltrepro.record.samples import read_samples
from meltrepro.record.trace import Span
from meltrepro.record.trial import DEVICE, EVENTS, REQUEST, SAMPLES, Request
from meltrepro.targets.android.adb import Server
from meltrepro.targets.android.adb_server import program
from tests.integration.bundles import Bundle
from tests.integration.conftest import ROOT, meltrepro
from tests.support.database import contents
from tests.support.truth import drawn_j

pytestmark = pytest.mark.machine
LONGER = (
    "--set=targets.host.isa=auto",  # the level that other tests build, too
    "--set=targets.phone.settings.screen=off",
    "--set=measure.sampling_hz=5",
    "--set=measure.limits.cpu_pressure=1",  # a machine that runs tests is busy
    "--set=workloads.chat.max_tokens=16",
)
"""Enough of a generation for its energy."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """How the lab's devices are reached, and where their truth is."""
    done = meltrepro("lab", "up", "--json")
    assert done.returncode == 0, done.stderr
    try:
        yield json.loads(done.stdout)["devices"]
    finally:
        assert meltrepro("lab", "down").returncode == 0
    assert "no lab is running" in meltrepro("lab", "status").stdout
    for place in json.loads(done.stdout)["devices"].values():
        assert not Path(place["truth"]).exists(), "the lab leaves nothing behind"


@pytest.fixture(scope="module")
def phone(lab: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return lab["phone"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the records of these tests are, and the reports on devices."""
    return tmp_path_factory.mktemp("lab-home")


@pytest.fixture(scope="module")
def report(phone: Mapping[str, Any], home: Path) -> Mapping[str, Any]:
    """What a probe of the phone found."""
    done = meltrepro("devices", "probe", "phone", "--seconds", "15", "--json", home=home)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def campaign(
    engine: None,
    phone: Mapping[str, Any],
    report: Mapping[str, Any],
    home: Path,
    runner_bundles: Mapping[str, Path],
    lab: Mapping[str, Mapping[str, Any]],
) -> CampaignRecord:
    """The campaign of specs/virtual-lab.yaml, while the plain adb client uses the phone too.

    An iPhone tells no host what it draws, so that one has a meter, which writes Unix time and the energy so far.
    """
    spec = shutil.copytree(ROOT / "specs", home / "specs") / "virtual-lab.yaml"
    meter = f"{{file: {lab['iphone']['meter']}, time: unix_s, clock: host, columns: {{energy_j: J}}, refresh_s: 0.5}}"
    other = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(phone["adb_port"]), "HOME": str(home)}
    stranger = subprocess.Popen(
        ["sh", "-c", 'while :; do "$0" -s "$1" shell "echo mine; sleep 1"; done', program(), phone["serial"]],
        env=other,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        done = meltrepro(
            *("run", spec, *LONGER, f"--set=targets.iphone.meter={meter}"),
            home=home,
        )
    finally:
        os.killpg(stranger.pid, 9)
        said, _ = stranger.communicate()
    assert done.returncode == 0, done.stderr
    for target in ("phone", "board", "iphone"):
        assert f"\n{target}: a virtual device; its numbers say nothing of real ones" in done.stdout
    assert "host: a virtual device" not in done.stdout
    assert said.count(b"mine") > 3, "the other tool was served all the time"
    (folder,) = (home / "records").iterdir()
    return read_campaign(folder)


def test_a_probe_tries_everything_out(report: Mapping[str, Any]) -> None:
    controls = {control["name"]: control for control in report["controls"]}
    assert set(controls) == {
        "stay_awake",
        "battery_saver",
        "airplane_mode",
        "brightness_mode",
        "brightness",
        "screen_timeout_ms",
        "screen",
        "cores",
    }
    assert all(control["works"] for control in controls.values()), controls
    assert (controls["screen"]["before"], controls["screen"]["set_to"]) == ("on", "off")
    assert "battery.current" in report["sources"]
    assert report["battery"]["calibrated"], report["battery"]["why"]
    assert (report["battery"]["current_a"], report["battery"]["voltage_v"]) == (-1e-6, 1e-6)
    assert report["battery"]["ratio"] == pytest.approx(-1, rel=0.1)


def test_records_hold_the_report_and_the_settings(campaign: CampaignRecord, report: Mapping[str, Any]) -> None:
    (trial,) = cell_of(campaign, "phone").repetitions
    device = json.loads((trial.folder / DEVICE).read_bytes())
    assert device["capabilities"] == report
    assert device["settings"] == {"screen": "off"}
    assert device["before"]["thermal_status"] == 0
    assert cell_of(campaign, "phone").entry.params["settings.screen"] == "off"
    (other,) = cell_of(campaign, "host").repetitions
    assert json.loads((other.folder / DEVICE).read_bytes())["capabilities"] is None


def test_settings_are_put_back(campaign: CampaignRecord, phone: Mapping[str, Any], home: Path) -> None:
    done = meltrepro("devices", "restore", "phone", home=home)
    assert done.stdout == "nothing was running\nno setting was to be put back\n"


def test_what_was_deployed_can_be_removed(phone: Mapping[str, Any], campaign: CampaignRecord, home: Path) -> None:
    assert meltrepro("devices", "clean", "phone", home=home).stdout.endswith(" MB freed\n")
    assert meltrepro("devices", "clean", phone["serial"], home=home).stdout == "0 B freed\n"
    assert meltrepro("devices", "clean", "iphone", home=home).stdout.endswith(" MB freed\n")


def cell_of(campaign: CampaignRecord, target: str) -> CellRecord:
    return next(cell for cell in campaign.cells if cell.entry.target == target)


def test_all_devices_are_measured_and_told_apart(campaign: CampaignRecord) -> None:
    for target, virtual in (("host", False), ("phone", True), ("board", True), ("iphone", True)):
        cell = cell_of(campaign, target)
        assert cell.validity.valid, cell.validity
        assert cell.virtual is virtual
        assert cell.summaries["generation_tps"].median > 0
        assert cell.summaries["peak_memory_bytes"].median > 50e6
    for target in ("phone", "board", "iphone"):
        assert cell_of(campaign, target).entry.params["device.arch"] == "aarch64"


@pytest.mark.parametrize(
    ("target", "root"), [("phone", "/data/local/tmp/meltrepro"), ("board", "/var/tmp/meltrepro"), ("iphone", "../..")]
)
def test_a_device_generates_what_its_runner_generates_by_hand(
    campaign: CampaignRecord, runner_bundles: Mapping[str, Path], target: str, root: str
) -> None:
    (trial,) = cell_of(campaign, target).repetitions
    arm = next(Bundle(path) for path in runner_bundles.values() if Bundle(path).facts["isa"] == "armv8_2")
    assert arm.facts["release"] == cell_of(campaign, target).entry.release
    model = next(iter(meltrepro_models(campaign)))
    request = Request.model_validate_json((trial.folder / REQUEST).read_bytes())
    assert request.model.startswith(f"{root}/cas/")
    by_hand = generated(arm, request.model_copy(update={"model": str(model)}).model_dump_json(exclude_none=True))
    assert by_hand == tokens(trial.folder / EVENTS)


@lru_cache
def generated(bundle: Bundle, request: str) -> list[int]:
    """What a runner generates without any device. One file here: the same request need not be emulated twice."""
    with tempfile.TemporaryDirectory() as folder:
        asked, events = Path(folder, REQUEST), Path(folder, EVENTS)
        asked.write_text(request)
        subprocess.run([*bundle.command("melt-runner"), asked, events], check=True, timeout=500)
        return tokens(events)


def meltrepro_models(campaign: CampaignRecord) -> list[Path]:
    """The quantized model that the phone got, in the store here."""
    from meltrepro import settings
    from meltrepro.store.cas import Store

    digest = cell_of(campaign, "phone").entry.model_digest
    return [Store(settings.load().cache / "store").path(digest)]


def tokens(events: Path) -> list[int]:
    lines = map(json.loads, events.read_text().splitlines())
    return [line["id"] for line in lines if line["e"] == "token"]


@pytest.mark.parametrize(
    ("target", "device", "columns", "step_w"),
    [
        ("phone", "phone", ("power_w",), 0.0),
        ("board", "jetson", ("VDD_GPU_SOC", "VDD_CPU_CV"), 0.152),
        ("iphone", "iphone", ("power_w",), 0.0),
    ],
)
def test_energy_is_what_a_device_drew(
    campaign: CampaignRecord,
    lab: Mapping[str, Mapping[str, Any]],
    target: str,
    device: str,
    columns: tuple[str, ...],
    step_w: float,
) -> None:
    """The board's by the rails of its profile, as far as their monitors' steps allow."""
    (trial,) = cell_of(campaign, target).repetitions
    turn = trial.trace().conversations[0].turns[0]
    metrics = trial.metrics
    for phase, span in (("prefill", turn.prefill), ("generation", Span(turn.token_ns[0], turn.token_ns[-1]))):
        assert span is not None
        assert not metrics.unavailable.get(f"{phase}_energy_j")
        measured = metrics.values[f"{phase}_energy_j"]
        truth = Path(lab[device]["truth"])
        true = drawn_j(truth, columns, span.begin_ns, span.end_ns, metered="meter" in lab[device])
        uncertainty = metrics.bounds.get(f"{phase}_energy_j", 0.0)
        uncertainty += len(columns) * step_w / 2 * (span.end_ns - span.begin_ns) / 1e9
        print(f"{phase}: {measured:.3f} J measured, {true:.3f} J drawn, bound {uncertainty:.3f} J")
        assert measured == pytest.approx(true, rel=0.01, abs=uncertainty), phase


def test_an_engine_that_brings_libraries_runs_there_too(lab: Mapping[str, Any], tmp_path: Path) -> None:
    """MLC's models are compiled for each CPU, and its floats are not rounded: the same tokens everywhere."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    less = (
        *("protocol.repetitions=1", "protocol.warmups=0", "workloads.chat.first=1", "workloads.chat.max_tokens=4"),
        *("workloads.chat.conversations=[[Hello]]", "measure.limits.cpu_pressure=1"),
    )
    overrides = [part for one in less for part in ("--set", one)]
    only = [part for target in ("host", "phone") for part in ("--only", f"*/q4_0/mlc/{target}/chat")]
    spec = tmp_path / "specs" / "engines.yaml"
    done = meltrepro("run", spec, *only, "--no-track", *overrides, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "records").iterdir()
    cells = {cell.entry.target: cell for cell in read_campaign(folder).cells}
    assert set(cells) == {"host", "phone"}
    said = {target: tokens(cell.repetitions[0].folder / EVENTS) for target, cell in cells.items()}
    assert said["phone"] == said["host"] != []


def test_an_iphone_is_asked_what_it_tells(campaign: CampaignRecord) -> None:
    """What its runner app and its services say: its own memory and heat, and a battery from which nothing is charged."""
    (trial,) = cell_of(campaign, "iphone").repetitions
    recording = read_samples(trial.folder / SAMPLES)
    footprint, heat = recording.named("process.footprint"), recording.named("thermal.state")
    assert footprint is not None and max(footprint.values) > 50e6
    assert heat is not None and set(heat.values) <= {0, 1, 2, 3}
    device = json.loads((trial.folder / DEVICE).read_bytes())
    assert device["before"]["battery"]["charging"] is False
    assert device["before"]["battery"]["current_ma"] < 0
    assert device["facts"]["facts"].get("proof") is None, "the lab's own phone is proven by these tests"
    assert cell_of(campaign, "iphone").entry.bundle_digest == cell_of(campaign, "phone").entry.bundle_digest


def test_every_device_has_its_run_and_its_trace(campaign: CampaignRecord, home: Path, tmp_path: Path) -> None:
    found = contents(home / "mlflow.db")
    virtual = {run: value for run, key, value in found["tags"] if key == "meltrepro.virtual"}
    assert len(campaign.cells) == 4
    for cell in campaign.cells:
        name = f"{cell.entry.quantization} · {cell.entry.framework} {cell.entry.release} · {cell.entry.target}"
        name += " (virtual)" if cell.virtual else ""
        assert virtual[name] == str(cell.virtual).lower()
        assert [status for run, status, *_ in found["runs"] if run == name] == ["FINISHED"]
        (logged,) = [value for run, key, value, _ in found["latest"] if (run, key) == (name, "generation_tps")]
        assert logged == pytest.approx(cell.summaries["generation_tps"].median)
    done = meltrepro("trace", "--output", tmp_path, home=home)
    assert done.returncode == 0, done.stderr
    for cell in campaign.cells:
        (trace,) = tmp_path.glob(f"{cell.id.replace('/', ',')},*.perfetto-trace")
        content = trace.read_bytes()
        assert cell.id.encode() in content and b"generation" in content
        assert (b"thermal.state" in content) is (cell.entry.target == "iphone")


def test_devices_lists_phone_and_board(phone: Mapping[str, Any], lab: Mapping[str, Mapping[str, Any]]) -> None:
    rows = json.loads(meltrepro("devices", "--json").stdout)
    (board,) = [row for row in rows if row["kind"] == "jetson"]
    assert (board["serial"], board["state"], board["todo"]) == ("jetson", "device", None)
    assert "Virtual Jetson, L4T 36.4.3" in board["device"]
    assert board["device"].endswith("virtual")
    (row,) = [row for row in rows if row["serial"] == phone["serial"]]
    assert (row["kind"], row["state"], row["todo"]) == ("android", "device", None)
    assert "Virtual Phone, Android 14" in row["device"]
    assert row["device"].endswith("virtual")
    (apple,) = [row for row in rows if row["kind"] == "ios"]
    assert (apple["serial"], apple["state"], apple["todo"]) == (lab["iphone"]["udid"], "device", None)
    assert apple["device"].endswith("virtual")


def test_a_lab_that_is_down_is_missed_by_name(tmp_path: Path) -> None:
    """Not the lab of these tests: another cache, another lab."""
    done = meltrepro("plan", ROOT / "specs/virtual-lab.yaml", home=tmp_path, MELTREPRO_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    skipped = done.stdout.partition("skipped")[2]
    assert "target phone: the lab has no phone 'phone' now; start it with: meltrepro lab up" in skipped
    assert "\n1 cell, 1 trial;" in skipped, "the host's is planned all the same"


def test_devices_die_with_a_keeper_that_is_killed(tmp_path: Path) -> None:
    """In a lab of its own; nothing of it is in the way of the next one."""
    own = str(tmp_path / "cache")
    try:
        first = json.loads(meltrepro("lab", "up", "--json", MELTREPRO_CACHE=own).stdout)
        os.kill(first["pid"], signal.SIGKILL)
        port = first["devices"]["phone"]["adb_port"]
        deadline = time.monotonic() + 10
        while Server(port).answers() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Server(port).answers()
        assert json.loads(meltrepro("lab", "status", "--json", MELTREPRO_CACHE=own).stdout)["up"] is False
        again = json.loads(meltrepro("lab", "up", "--json", MELTREPRO_CACHE=own).stdout)
        assert again["up"]
        assert again["pid"] != first["pid"]
        assert json.loads(meltrepro("lab", "up", "--json", MELTREPRO_CACHE=own).stdout)["pid"] == again["pid"], (
            "one lab at a time"
        )
        os.kill(again["devices"]["phone"]["processes"][0], signal.SIGKILL)
        while not (seen := json.loads(meltrepro("lab", "status", "--json", MELTREPRO_CACHE=own).stdout))["dead"]:
            assert time.monotonic() < deadline + 600
        assert (seen["up"], seen["dead"]) == (True, ["phone"])
        mended = json.loads(meltrepro("lab", "up", "--json", MELTREPRO_CACHE=own).stdout)
        assert (mended["pid"], mended["dead"]) == (again["pid"], [])
        assert mended["devices"]["jetson"] == again["devices"]["jetson"]
        assert Server(mended["devices"]["phone"]["adb_port"]).answers()
    finally:
        assert meltrepro("lab", "down", MELTREPRO_CACHE=own).stdout == "the lab is down\n"
    assert meltrepro("lab", "down", MELTREPRO_CACHE=own).stdout == "no lab was running\n"
