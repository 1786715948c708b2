"""The target contract on a virtual Jetson with a real OpenSSH server, and what is particular to such boards."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.lab.jetson import PARTS, VirtualJetson
from meltrepro.measure import energy
from meltrepro.measure.integrals import SampleLimits
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record.samples import read_samples
from meltrepro.record.trace import Span
from meltrepro.record.trial import SAMPLES
from meltrepro.targets.base import AGENT, SAMPLER
from meltrepro.targets.jetson import tegrastats
from meltrepro.targets.jetson.options import JetsonSettings
from meltrepro.targets.jetson.target import Jetson
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.link import SshLink
from meltrepro.testing import targets as suite
from meltrepro.testing.targets import Bench
from tests.integration.scorer_rig import scores_there_as_here
from tests.support.truth import drawn_j

pytestmark = [pytest.mark.integration, pytest.mark.contract]
ROOT = "/var/tmp/meltrepro"
WORK = "end=$(($(date +%s) + 6)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; done"
"""Keeps a core busy for about six seconds, however fast it is."""


class TestContract(suite.AnyProgramContract):
    """With the `bench` below."""


@pytest.fixture
def bench(board_lab: tuple[VirtualJetson, SshLink], native_bundle: Path, tmp_path: Path) -> Iterator[Bench]:
    _, link = board_lab
    shell = Shell(link)
    target = RemoteTarget(shell, Jetson(), ROOT, reconnect_s=20)
    yield Bench(target, tmp_path, native_bundle / AGENT)
    assert target.stop_strays() == 0, "a trial leaves nothing behind"
    shell.expect(shell.run(["rm", "-rf", ROOT]), "clean up")


def test_the_bundles_scorer_comes_to_the_same_there(bench: Bench, native_bundle: Path, tmp_path: Path) -> None:
    scores_there_as_here(bench.target, native_bundle, tmp_path)


def target(link: SshLink, platform: Jetson) -> RemoteTarget:
    return RemoteTarget(Shell(link), platform, ROOT, reconnect_s=20)


def test_it_says_what_it_is(bench: Bench) -> None:
    facts = bench.target.identify()
    assert (facts.kind, facts.arch, facts.virtual) == ("jetson", platform.machine(), True)
    assert facts.model == "meltrepro Virtual Jetson"
    assert "MELTJETSON" not in str(facts), "its serial number leaves it as a digest only"
    expected = {
        "l4t": "36.4.3",
        "jetpack": "6.1 or 6.2",
        "power_mode": "30W",
        "power_modes": "MAXN 15W 30W 50W",
        "energy_rails": "melt: VDD_GPU_SOC + VDD_CPU_CV",
    }
    assert expected.items() <= facts.facts.items()


def test_its_state_has_mode_clocks_fan_and_a_line_of_tegrastats(bench: Bench) -> None:
    bench.job("exit 0")
    state = bench.target.state()
    assert state.conditions["power_mode"] == "30W"
    assert state.conditions["clocks_pinned"] == "no"
    assert "fan.pwmfan.pwm1" in state.conditions
    assert state.conditions["devfreq.17000000.gpu"] == "306000000 Hz of 306000000 to 1300500000"
    assert state.conditions["cooling.cooling_device0:pwm-fan"] == "0"
    said = tegrastats.fed_sources(state.conditions["tegrastats"], "/root")
    assert {source.name for source in said if source.unit == "mW"} == {f"tegrastats.{label}" for label in PARTS}
    assert "thermal_zone1:cv0-thermal" not in state.temperatures_c, "it is switched off"
    assert 20 < state.temperatures_c["thermal_zone3:tj-thermal"] < 60


def test_rails_that_it_does_not_have(bench: Bench, board_lab: tuple[VirtualJetson, SshLink]) -> None:
    with pytest.raises(TargetError, match="no rail VDD_IN") as failure:
        target(board_lab[1], Jetson(["VDD_IN"])).sources()
    assert "VDD_GPU_SOC" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("profile", "counted"),
    [("melt", ("VDD_GPU_SOC", "VDD_CPU_CV")), ("all", tuple(PARTS))],
)
def test_energy_of_a_profile_is_what_its_rails_drew(
    bench: Bench, board_lab: tuple[VirtualJetson, SshLink], native_bundle: Path, profile: str, counted: tuple[str, ...]
) -> None:
    """Sampled by the bundle's own sampler while one core works for a while, against what the board really drew."""
    if not (native_bundle / SAMPLER).exists():
        pytest.skip("this bundle has no sampler")
    board, link = board_lab
    there = target(link, Jetson(profile, tegrastats=True))
    sources = there.sources()
    assert {source.name for source in sources if source.name.startswith("tegrastats.V")} == {
        f"tegrastats.{label}" for label in PARTS
    }
    job = bench.job(WORK)
    shutil.copy(native_bundle / SAMPLER, job.bundle.path / SAMPLER)
    there.deploy(job.bundle, job.model)
    with there.sampling(job.bundle, sensor_plan(sources, 10), job.folder):
        time.sleep(1)
        begin = there.clock_ns()
        assert there.run_trial(job).exit_code == 0
        end = there.clock_ns()
        time.sleep(1.5)
    recording = read_samples(job.folder / SAMPLES)
    assert not recording.faults
    supply = energy.supply_of(recording)
    assert supply.power is not None
    assert supply.power.channel.name == "rail." + " + ".join(counted)
    found = energy.energy(supply, [Span(begin, end)], SampleLimits(gap_s=1.0))
    true = drawn_j(board.truth, counted, begin, end)
    coarse = len(counted) * 0.5 * 0.008 * 19 * (end - begin) / 1e9
    print(f"{profile}: {found.total.value:.2f} J measured, {true:.2f} J drawn, in {(end - begin) / 1e9:.1f} s")
    assert found.total.value == pytest.approx(true, abs=found.total.bound + coarse)
    assert true > 1.02 * drawn_idle_w(counted) * (end - begin) / 1e9, "work is seen"
    slow = next(s for s in recording.series if s.channel.name == "tegrastats.VDD_CPU_CV")
    fast = next(s for s in recording.series if s.channel.name == "rail.VDD_CPU_CV.current")
    assert max(slow.values) == pytest.approx(max(fast.values) * 19_000, rel=0.25), "the second source agrees"


def drawn_idle_w(rails: tuple[str, ...]) -> float:
    return sum(PARTS[rail].idle_w for rail in rails)


def test_a_plan_of_its_sources_can_be_recorded(bench: Bench) -> None:
    document = json.loads(sensor_plan(bench.target.sources(), 10))
    by_name = {one["name"]: one for one in document["header"]["channels"]}
    assert by_name["rail.VDD_GPU_SOC.current"]["unit"] == "A"
    assert "aside.VIN_SYS_5V0.current" in by_name


def settled(link: SshLink, **settings: str) -> RemoteTarget:
    requested = Requested(JetsonSettings.model_validate(settings).model_dump(exclude_none=True))
    return RemoteTarget(Shell(link), Jetson(), ROOT, reconnect_s=20, requested=requested)


def test_power_mode_clocks_and_fan_hold_and_are_put_back_by_whoever_comes_next(
    board_lab: tuple[VirtualJetson, SshLink], bench: Bench
) -> None:
    _, link = board_lab
    bench.job("exit 0")
    asked = settled(link, power_mode="15W", clocks="pinned", fan="fastest")
    assert asked.adjust() == {"power_mode": "15W", "clocks": "pinned", "fan": "fastest"}
    conditions = bench.target.state().conditions
    assert (conditions["power_mode"], conditions["clocks_pinned"]) == ("15W", "yes")
    assert conditions["fan.pwmfan.pwm1"] == "255"
    # As after a kill: nobody restored, and another process, with other requested, comes to the board.
    assert settled(link, power_mode="50W").adjust() == {"power_mode": "50W"}
    assert bench.target.state().conditions["clocks_pinned"] == "no", "what it does not want is put back first"
    assert settled(link).restore() == {"power_mode": "30W"}
    conditions = bench.target.state().conditions
    assert (conditions["power_mode"], conditions["clocks_pinned"]) == ("30W", "no")
    assert conditions["fan.pwmfan.pwm1"] != "255"
    assert settled(link).restore() == {}


@pytest.mark.parametrize(
    ("mode", "why"), [("MAXN", "needs a reboot, which is never done"), ("20W", "no power mode 20W")]
)
def test_a_mode_that_cannot_be_had_is_refused(
    board_lab: tuple[VirtualJetson, SshLink], bench: Bench, mode: str, why: str
) -> None:
    bench.job("exit 0")
    asked = settled(board_lab[1], power_mode=mode)
    with pytest.raises(TargetError, match=why):
        asked.adjust()
    assert asked.restore() in ({}, {"power_mode": "30W"})
    assert bench.target.state().conditions["power_mode"] == "30W"
