"""The target contract: what campaigns need of a device, whatever it is and however it is reached.

A target knows how to identify a device, read its state and run one trial on it. It measures nothing and decides
nothing. Phones and boards behind a link keep the same three promises:

- `identify` gives an id that survives reboots and reconnections; a lock per id keeps campaigns apart.
- `run_trial` ends in a `TrialResult` whatever the runner did. It raises only where the device itself cannot be used:
  `TargetLost` where the link went away and may come back, `TargetError` where trying again cannot help.
- When `run_trial` has returned or raised, nothing that it started is alive, and the record folder on this machine holds
  everything that the runner wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

from meltrepro.build.model import ADAPTER, DRAFT, MODEL, Argument, Artifact, Engine, Input, Maker, PathOf
from meltrepro.errors import StoreError
from meltrepro.manifest.targets import TargetOptions
from meltrepro.record import trial as record
from meltrepro.record.trial import AnyRequest, Request
from meltrepro.settings import Settings

RUNNER, SAMPLER, AGENT = "bin/melt-runner", "bin/melt-sampler", "bin/melt-agent"
"""Paths of runner, sampler and agent in every bundle."""
LIBRARIES = "lib"
"""Folder of a bundle with the libraries of its runner, where it has some; a runner looks for it beside itself too."""
PACKAGE = "app/melt-runner.ipa"
"""Path of the signed runner app in bundles of apps, which hold nothing else that runs, and which samples itself."""
RUNNERS, SAMPLERS = (RUNNER, PACKAGE), (SAMPLER, PACKAGE)
"""Paths of what runs trials and of what samples, one of which a bundle has."""
RAW = "raw"
"""Unit of a channel whose numbers are its driver's, of unknown unit and sign."""
DRAWN = "battery.drawn"
"""Channel of a battery's current whose unit and sign are known: positive for what the device draws."""
PROCESS = "{pid}"
"""Stands in the path of a source for the process that is watched."""


RUNNER_ARGUMENTS: tuple[Argument, ...] = (PathOf(record.REQUEST), PathOf(record.EVENTS))
"""What a runner is called with."""
Progress = Callable[[int, int], None]
"""Told how many bytes of how many have been brought to a device."""


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class DeviceFacts:
    """What planning and records need to know of a device."""

    id: str
    """Stable across reboots and reconnections."""
    kind: str
    model: str
    arch: str
    """Machine as `uname -m` spells it."""
    features: frozenset[str]
    """CPU features as the kernel spells them."""
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    system: str = ""
    """Its operating system, for people."""
    virtual: bool = False
    here: bool = False
    """Whether it is this machine."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Everything else worth keeping: kernel, governor, CPU model, OS build."""

    @property
    def described(self) -> str:
        """On one line, for people."""
        size = f"{self.memory_bytes / 1e9:.1f} GB"
        known = (self.model, self.system, self.arch, f"{self.cores} cores", size, self.id)
        return ", ".join(each for each in (*known, "virtual" if self.virtual else "") if each)


def device_id(family: str, own: str) -> str:
    """The id of a device by what it alone has, such as a serial number, of which no more than a digest leaves it."""
    return f"{family}-{hashlib.sha256(f'meltrepro {own}'.encode()).hexdigest()[:12]}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise `StoreError` where files of a record's folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write the record {folder}: {error.strerror or error}") from error


@contextmanager
def arriving(local: Path) -> Iterator[BinaryIO]:
    """A file of a record's folder to write to, which is there once it is whole; raises as `writing` does."""
    part = local.with_name(local.name + ".part")
    with writing(local.parent):
        try:
            with part.open("wb") as file:
                yield file
            part.replace(local)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Battery:
    """State of a battery; `None` where the device does not say."""

    percent: float | None = None
    charging: bool | None = None
    voltage_mv: float | None = None
    current_ma: float | None = None
    temperature_c: float | None = None


VOLTAGES_MV = (2500.0, 60_000.0)
"""What a battery can have; some devices print other units, or zeros where they have no sensor."""


def within(limits: tuple[float, float], value: float | None) -> float | None:
    """A value that can be meant, else `None`."""
    return value if value is not None and limits[0] <= value <= limits[1] else None


@dataclass(frozen=True)
class Reading:
    """One look at a battery, in the device's own numbers."""

    t_s: float
    """By a clock of the device."""
    current: int | None
    """`None` where it is not shown."""
    charge_uah: int | None
    voltage: int | None
    charging: bool
    batteries: int = 1
    """How many show a current."""


@dataclass(frozen=True)
class DeviceState:
    """A device at one moment: what can be read; what cannot is named in `unavailable`, with the reason."""

    wall_ns: int
    """Unix time by the device's clock."""
    monotonic_ns: int
    """CLOCK_MONOTONIC of the device, read together with `wall_ns`."""
    boot_id: str | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    """By sensor name."""
    frequencies_khz: Mapping[str, int] = field(default_factory=dict)
    """Current CPU clocks, by CPU name."""
    governors: Mapping[str, str] = field(default_factory=dict)
    """CPU frequency governors, by CPU name."""
    load_1min: float | None = None
    cpu_idle_s: float | None = None
    """Time that all CPUs together have had nothing to do, since boot."""
    memory_available_bytes: int | None = None
    battery: Battery | None = None
    thermal_status: int | None = None
    """How far Android throttles because of heat: 0 (not at all) to 6 (about to switch off)."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What else of the device may change: power mode, fan, what slows it down."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Field name -> why it cannot be read."""


@dataclass(frozen=True)
class Source:
    """One number in one file."""

    name: str
    unit: str
    kind: Literal["gauge", "counter"]
    path: str
    """Below the root of the file system; may hold `{pid}`."""
    after: str = ""
    """The number comes after this text; at the beginning of the file where empty."""
    index: int = 0
    """How many numbers come before it."""
    scale: float = 1.0
    """Unit of the source in units of the channel. A channel of unit `raw` has the numbers of its driver, whose unit and sign
    nobody knows."""
    refresh_s: float | None = None
    """How often there is a new value; asked more often, the sampler would read the same one again."""
    wraps_at: float | None = None
    """Of a counter: where it starts again, in units of the channel."""


@dataclass(frozen=True)
class TriedSetting:
    """A setting of a device that was tried out."""

    name: str
    before: str | None
    """How it was; `None` where the device does not tell."""
    set_to: str | None
    """What it was set to, read back and put back again; `None` where that did not work."""
    why: str = ""
    """What went wrong."""


@dataclass(frozen=True)
class TrialJob:
    """One trial as a target gets it."""

    bundle: Artifact
    model: Artifact
    request: AnyRequest
    """Complete but for `model`, which the target sets to the path that the program will see."""
    folder: Path
    """Record folder on this machine; request, events and logs end up here."""
    timeout_s: float
    program: str = RUNNER
    """Path in the bundle of what is run: the runner, or the framework's scorer."""
    arguments: Sequence[Argument] = RUNNER_ARGUMENTS
    """What follows the program's name. Names that are neither the model nor an input are files of the record's folder."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """Files that the program reads besides the model, by the names that its arguments have for them."""

    @property
    def network(self) -> bool:
        """Whether the program talks to one on another device."""
        request = self.request
        return isinstance(request, Request) and (request.ask is not None or request.serve is not None)

    def argv(self, program: str, seen: Callable[[str], str]) -> list[str]:
        """The command line, given where the program and each file are as the program sees them."""
        return [
            program,
            *(seen(each.name) + each.after if isinstance(each, PathOf) else each for each in self.arguments),
        ]

    def written(self, seen: Callable[[str], str]) -> str:
        """The text of `request.json`, given where each file is as the program sees it."""
        request = self.request.model_copy(update={"model": seen(MODEL)})
        for key, name in (("speculate", DRAFT), ("lora", ADAPTER)):
            part = getattr(request, key, None)
            if name in self.inputs and part is not None:
                request = request.model_copy(update={key: part.model_copy(update={"model": seen(name)})})
        return request.model_dump_json(indent=2, exclude_none=True) + "\n"


@dataclass(frozen=True)
class TrialResult:
    """How a runner ended."""

    exit_code: int
    """Exit status; 128 + signal number where a signal ended it."""
    duration_s: float
    """From start to end of the runner as this machine saw it; never the source of a metric."""
    timed_out: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Attached:
    """A device that can be seen from here, as `meltrepro devices` shows it."""

    kind: str
    serial: str
    state: str
    device: str
    """What it is, where it can be asked."""
    todo: str | None
    """What somebody has to do before it can be used."""


class Engines(Protocol):
    """What makes the engine of a command, which is not started before something needs it."""

    @property
    def engine_name(self) -> str: ...

    def engine(self) -> Engine:
        """The engine; raises `EngineError` where it does not answer."""
        ...


class TargetKind(Protocol):
    """A class of devices; one object, found by its name in manifests (`meltrepro.registry.TARGETS`)."""

    @property
    def kind(self) -> str:
        """As manifests name it."""
        ...

    @property
    def family(self) -> Literal["host", "phone", "board"]: ...

    @property
    def options(self) -> type[TargetOptions]:
        """What a manifest may say of one."""
        ...

    @property
    def makers(self) -> Mapping[str, Callable[[], Maker]]:
        """What builds programs that no engine can, by the names that recipes have for them."""
        return {}

    def most_w(self, cores: int) -> float:
        """The most that a device of this kind with so many cores can draw, in watts (docs/meters.md#what-a-device-can-draw)."""
        return 150.0 + 20.0 * cores

    def open(self, options: Any, settings: Settings, engines: Engines | None) -> Target:
        """One device, which without `engines` can be looked at, and runs nothing in a sandbox of this machine; raises `TargetError` where its kind of link is not there."""
        ...

    def attached(self, settings: Settings) -> Sequence[Attached]:
        """What can be seen from here, in whatever state."""
        return ()

    def absent(self) -> str | None:
        """What to say where nothing is attached, if anything."""
        return None

    def named(self, text: str | None, settings: Settings) -> TargetOptions | None:
        """The device that a user calls so (`KIND:NAME`, the name of one of the lab, a serial), `None` for none of this kind.

        Raises pydantic's `ValidationError` for a name that no device has.
        """
        return None


@runtime_checkable
class Pairing(Protocol):
    """A kind whose devices ask their users whether to trust this computer."""

    def pair(self, name: str, settings: Settings, tell: Callable[[str], object]) -> None:
        """Have a device ask, which is what `tell` hears; raises `TargetError` where that comes to nothing."""
        ...


@runtime_checkable
class Privileged(Protocol):
    """A kind whose settings need root."""

    def sudoers(self, options: Any, settings: Settings, user: str | None) -> str:
        """A file for /etc/sudoers.d that allows what is needed and no more to the user who logs in, or the one named."""
        ...


class Target(Protocol):
    """A device and how to reach it."""

    def identify(self) -> DeviceFacts:
        """What the device is; raises `TargetError` or `TargetLost`."""
        ...

    def state(self) -> DeviceState:
        """How the device is at this moment; raises `TargetLost`."""
        ...

    def clock_ns(self) -> int:
        """CLOCK_MONOTONIC of the device at this moment, by the quickest way there is; raises `TargetLost`."""
        ...

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        """Bring to the device what trials need, verified there; what is there already is not sent again.

        `program` is the member of the bundle that they run, `inputs` what it reads besides the model.

        Comes before `state`, `clock_ns` and everything below. Raises `TargetLost` (the next call goes on where this one
        broke off), `TargetError` where the device has no room or stores other bytes than it was sent.
        """
        ...

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run one trial to its end; raises `TargetError`, `TargetLost`, or `StoreError` where the folder cannot be
        written."""
        ...

    def sources(self) -> Sequence[Source]:
        """What a sampler can read on the device, as far as it is there now; raises `TargetLost`."""
        ...

    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> AbstractContextManager[None]:
        """Run the bundle's sampler on the device while the block runs; its samples end up in the record folder.

        A sampler that ends earlier leaves samples without an end. Raises `TargetLost`, or `StoreError` where the folder
        cannot be written.
        """
        ...

    def stop_strays(self) -> int:
        """Stop what a campaign that was killed left running on the device; the caller holds the device's lock.

        Returns how many it stopped.
        """
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A target whose settings can be changed and put back; ask by `isinstance`."""

    def adjust(self) -> Mapping[str, str]:
        """Make the settings hold that the target's entry asks for; how they were is kept on the device first.

        Returns them by name. Raises `TargetError` where one cannot be set, `TargetLost`.
        """
        ...

    def restore(self) -> Mapping[str, str]:
        """Put back every setting that an `adjust` has changed, also that of a campaign that was killed.

        Returns them by name. Raises `TargetError` where one cannot be put back, `TargetLost`.
        """
        ...

    def try_out(self) -> Sequence[TriedSetting]:
        """Set each setting to another value, read it back and restore it; raises `TargetLost`."""
        ...


@runtime_checkable
class Addressed(Protocol):
    """A target that knows how it is reached over a network."""

    def address(self) -> str:
        """An IP address, or a name that this machine knows; raises `TargetError` where the link has none."""
        ...


@runtime_checkable
class Markable(Protocol):
    """A target that several hosts can reach, which keeps the mark of the one that has taken it."""

    def mark(self, text: str) -> None:
        """Take it from whoever had it; raises `TargetLost`, `TargetError`."""
        ...

    def marked(self) -> str:
        """The mark of who took it last; raises `TargetLost`."""
        ...


@runtime_checkable
class Cleanable(Protocol):
    """A target that keeps what was deployed to it."""

    def clean(self) -> int:
        """Remove all of it; returns how many bytes that freed. Raises `TargetLost`."""
        ...


@runtime_checkable
class Dischargeable(Protocol):
    """A target with a battery that can be discharged on purpose."""

    def discharge(self, seconds: float, tell: Callable[[float], object]) -> Sequence[Reading]:
        """Look at the battery every second while all CPUs are busy; `tell` hears for how long.

        Ends early where the device charges. Raises `TargetError` where it does not tell, `TargetLost`.
        """
        ...
