"""What a manifest says of llama.cpp besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from meltrepro.frameworks.base import Asked, OptionProblem
from meltrepro.frameworks.llamacpp.kits import Hexagon, Ndk
from meltrepro.frameworks.llamacpp.phones import PhonePart
from meltrepro.frameworks.llamacpp.releases import known_as
from meltrepro.manifest.axes import Swept
from meltrepro.manifest.base import Name, Strict, added
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.app_recipe import IosBuild
from meltrepro.targets.remote.options import cpus

ALL_LAYERS = 999
"""What a runner is asked for where every layer is to run on the GPU; more than any model has."""


class Cuda(Strict):
    """CUDA for Jetson boards: their bundles run layers on the GPU (docs/devices/jetson.md)."""

    jetpack: str = Field(min_length=1, description="Release of JetPack whose CUDA is built for, for example 7.2.")


class Vulkan(Strict):
    """Vulkan: layers run on whatever a device's driver offers (docs/frameworks/llama.cpp.md)."""

    driver: Literal["device", "software"] = Field(
        "device",
        description="`device`: loader and driver are the device's own. `software`: bundles for x86_64 bring Mesa's driver that computes on the CPU, to see that everything works.",
    )


# -- how it runs --------------------------------------------------------------------------------------------------------

OLD = "2024-02-27"
"""The release that lacks most."""
_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
WIDTHS = {name: 1 if name in ("f32", "f16", "bf16") else 32 for name in _TYPES}
_BITS = dict(zip(_TYPES, (32.0, 16.0, 16.0, 8.5, 6.0, 5.5, 5.0, 4.5, 4.5), strict=True))
"""How many values of a cache stand together, by their type."""


@dataclass(frozen=True)
class Knob:
    """An option of a run: what it sets in llama.cpp, and where it is told."""

    sets: str
    """Fields of `llama_model_params`, `llama_context_params` and `ggml_threadpool_params`."""
    told: str = ""
    """In the event `effective`; by the option's own name where empty."""
    new: bool = False
    """Whether the release of 2024-02-27 has no such thing."""
    lacks: tuple[str, ...] = ()
    """Values that it does not have."""
    gpu: bool = False
    """Whether it means nothing on CPUs."""
    flag: str | Mapping[Any, str] = ""
    """Of the command lines of llama.cpp's own programs; `{}` stands for the value."""


def _kv_type(text: str) -> str:
    parts = text.split("-")
    if len(parts) > 2 or not set(parts) <= set(_TYPES):
        raise ValueError(f"expected one of {', '.join(_TYPES)}, or that of keys and that of values as q8_0-f16")
    return parts[0] if parts[0] == parts[-1] else text


def _affinity(text: str) -> str:
    """A list of CPUs, whether a mask or a list was written."""
    try:
        if text.startswith("0x"):
            mask = int(text, 16)
            found = [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]
            text = ",".join(map(str, found))
        if cpus(text) and max(cpus(text)) < 512:
            return text
    except ValueError:
        pass
    raise ValueError(f"expected CPUs as 0-3,6 or as a mask, 0x4f, got {text!r}")


Whole = Annotated[int, Field(ge=1, le=2**31 - 1)]
Threads = Annotated[int, Field(ge=1, le=512)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Affinity = Annotated[str, AfterValidator(_affinity)]


def cache_bits(kv_type: str) -> float:
    """Bits of a number in the cache, of keys and values alike many."""
    keys, _, values = kv_type.partition("-")
    return (_BITS[keys] + _BITS[values or keys]) / 2


KvType = Annotated[str, AfterValidator(_kv_type)]
Shares = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(-[0-9]+(\.[0-9]+)?){1,15}$")]


class RunOptions(Strict):
    """How llama.cpp runs a model. What is not given is as the release has it; a list of values makes an axis."""

    gpu_layers: Annotated[
        Swept[Annotated[int, Field(ge=0, le=ALL_LAYERS)] | Literal["all"] | None],
        Knob("n_gpu_layers", told="layers_on_gpu", gpu=True),
    ] = Field(
        None,
        description="How many layers run on the GPU; all where absent. Needs cuda, vulkan, opencl or hexagon, and means nothing on CPUs.",
    )
    mmap: Annotated[Swept[bool], Knob("load_mode use_mmap")] = Field(
        True,
        description="Whether the runner maps the model file into memory. A release that repacks weights for the CPU then holds them twice; `false` reads them.",
    )
    load: Annotated[
        Swept[Literal["mmap", "read", "direct", "auto"] | None],
        Knob("load_mode use_mmap", lacks=("direct", "auto")),
    ] = added(
        None,
        description="How the model file is loaded, in place of `mmap`: `direct` reads past the system's cache, `auto` lets the release choose.",
    )
    mlock: Annotated[Swept[bool | None], Knob("load_mode use_mlock")] = added(
        None,
        description="Whether the weights are kept from leaving memory; `locked_bytes` of the record says whether it worked.",
    )
    lazy: Annotated[Swept[Literal["off", "auto", "on"] | None], Knob("lazy_mode", new=True, flag="-lzm {}")] = added(
        None, description="Whether rows of large tables are read when they are needed."
    )
    repack: Annotated[Swept[bool | None], Knob("use_extra_bufts", new=True, flag={False: "--no-repack"})] = added(
        None, description="Whether weights are repacked for the CPU while they are loaded."
    )
    threads_batch: Annotated[Swept[Threads | None], Knob("n_threads_batch", flag="-tb {}")] = added(
        None, description="Threads that compute prompts; those of the target where absent."
    )
    ubatch: Annotated[Swept[Whole | None], Knob("n_ubatch", told="n_ubatch", new=True, flag="-ub {}")] = added(
        None,
        description="Tokens that are computed at once within a step of the workload's `batch`; all of them where absent.",
    )
    kv_type: Annotated[Swept[KvType | None], Knob("type_k type_v", told="cache_types", flag="-ctk {k} -ctv {v}")] = (
        added(
            None,
            description="Type of keys and values in their cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl; or of each, as q8_0-f16.",
        )
    )
    flash_attention: Annotated[
        Swept[Literal["auto", "on", "off"] | None], Knob("flash_attn_type", new=True, flag="-fa {}")
    ] = added(None, description="Whether attention is computed in one fused step; `auto` where the release can.")
    swa_full: Annotated[Swept[bool | None], Knob("swa_full", new=True, flag={True: "--swa-full"})] = added(
        None, description="Whether layers that attend to a window keep the whole context."
    )
    numa: Annotated[
        Swept[Literal["off", "distribute", "isolate", "numactl"] | None],
        Knob("", flag={each: f"--numa {each}" for each in ("distribute", "isolate", "numactl")}),
    ] = added(None, description="How threads are spread over nodes of memory, on machines that have several.")
    affinity: Annotated[Swept[Affinity | None], Knob("cpumask", new=True, flag="-C {mask}")] = added(
        None, description="CPUs that the threads may run on: 0-3,6, or as a mask, 0x4f."
    )
    affinity_strict: Annotated[
        Swept[bool | None], Knob("strict_cpu", new=True, flag={True: "--cpu-strict 1", False: "--cpu-strict 0"})
    ] = added(None, description="Whether each thread has one of these CPUs for itself.")
    priority: Annotated[
        Swept[Literal["low", "normal", "medium", "high", "realtime"] | None],
        Knob(
            "prio",
            new=True,
            flag={"low": "--prio -1", "medium": "--prio 1", "high": "--prio 2", "realtime": "--prio 3"},
        ),
    ] = added(
        None,
        description="Priority of the threads; more than `normal` needs the right to it. The record has the kernel's own.",
    )
    poll: Annotated[Swept[Annotated[int, Field(ge=0, le=100)] | None], Knob("poll", new=True, flag="--poll {}")] = (
        added(
            None,
            description="How long threads wait busily for work: 0 not at all, 50 as the release has it, 100 longest.",
        )
    )
    rope_scaling: Annotated[
        Swept[Literal["none", "linear", "yarn", "longrope"] | None],
        Knob("rope_scaling_type", lacks=("longrope",), flag="--rope-scaling {}"),
    ] = added(
        None, description="How positions are scaled; as the model says where absent, and so with the keys that follow."
    )
    rope_freq_base: Annotated[Swept[Positive | None], Knob("rope_freq_base", flag="--rope-freq-base {}")] = added(
        None, description="Base of the frequencies with which positions turn."
    )
    rope_freq_scale: Annotated[Swept[Positive | None], Knob("rope_freq_scale", flag="--rope-freq-scale {}")] = added(
        None, description="Factor of these frequencies: 0.5 for twice the context."
    )
    yarn_ext_factor: Annotated[
        Swept[Annotated[float, Field(ge=0, le=1e9)] | None], Knob("yarn_ext_factor", flag="--yarn-ext-factor {}")
    ] = added(None, description="YaRN: part of extrapolation.")
    yarn_attn_factor: Annotated[Swept[Positive | None], Knob("yarn_attn_factor", flag="--yarn-attn-factor {}")] = added(
        None, description="YaRN: factor of the attention."
    )
    yarn_beta_fast: Annotated[Swept[Positive | None], Knob("yarn_beta_fast", flag="--yarn-beta-fast {}")] = added(
        None, description="YaRN: where extrapolation ends, in turns."
    )
    yarn_beta_slow: Annotated[Swept[Positive | None], Knob("yarn_beta_slow", flag="--yarn-beta-slow {}")] = added(
        None, description="YaRN: where interpolation begins, in turns."
    )
    yarn_orig_ctx: Annotated[Swept[Whole | None], Knob("yarn_orig_ctx", flag="--yarn-orig-ctx {}")] = added(
        None, description="YaRN: context that the model was trained for, in tokens."
    )
    cpu_moe: Annotated[
        Swept[Annotated[int, Field(ge=0, le=1000)] | Literal["all"] | None],
        Knob("tensor_buft_overrides", new=True, gpu=True),
    ] = added(None, description="Of how many layers, from the first, the experts stay in main memory.")
    kv_offload: Annotated[Swept[bool | None], Knob("offload_kqv", gpu=True)] = added(
        None, description="Whether keys and values, and attention, are the GPU's; `true` where absent."
    )
    op_offload: Annotated[Swept[bool | None], Knob("op_offload", new=True, gpu=True)] = added(
        None,
        description="Whether the GPU computes with weights of main memory where that is faster; `true` where absent.",
    )
    no_host: Annotated[Swept[bool | None], Knob("no_host", new=True, gpu=True)] = added(
        None, description="Whether the CPU's weights avoid memory that the GPU reads, so that they can be repacked."
    )
    split_mode: Annotated[
        Swept[Literal["none", "layer", "row", "tensor"] | None], Knob("split_mode", lacks=("tensor",), gpu=True)
    ] = added(None, description="How a model is split over several GPUs.")
    main_gpu: Annotated[Swept[Annotated[int, Field(ge=0, le=127)] | None], Knob("main_gpu", gpu=True)] = added(
        None, description="The GPU for all with `split_mode: none`, and for what is small with `row`."
    )
    tensor_split: Annotated[Swept[Shares | None], Knob("tensor_split", gpu=True)] = added(
        None, description="Each GPU's share of the model: 3-1; 0 leaves one out."
    )


KNOBS: Mapping[str, Knob] = {
    name: next(each for each in field.metadata if isinstance(each, Knob))
    for name, field in RunOptions.model_fields.items()
}
"""By option."""


def given(options: RunOptions) -> Mapping[str, Any]:
    """The options of a point that have a value and are not as they always are."""
    values = {name: getattr(options, name) for name in KNOBS}
    return {name: value for name, value in values.items() if value != RunOptions.model_fields[name].default}


def arguments(asked: Mapping[str, Any], release: str) -> tuple[str, ...]:
    """What a request's options are on the command lines of llama.cpp's programs; those of GPUs have none."""
    words = [*_loading(asked, release)]
    for name, value in asked.items():
        flag = KNOBS[name].flag if name in KNOBS else ""
        text = flag.get(value, "") if isinstance(flag, Mapping) else flag
        keys, _, values = str(value).partition("-")
        mask = sum(1 << cpu for cpu in cpus(value)) if name == "affinity" else 0
        words += text.format(value, k=keys, v=values or keys, mask=f"{mask:x}").split()
    return tuple(words)


def _loading(asked: Mapping[str, Any], release: str) -> Iterator[str]:
    load, mlock = asked.get("load", "mmap" if asked.get("mmap", True) else "read"), asked.get("mlock", False)
    if release == OLD:
        yield from ["--no-mmap"] * (load == "read") + ["--mlock"] * mlock
    elif load != "mmap" or mlock:
        usual = {"mmap": "mmap", "read": "none", "direct": "dio", "auto": "auto"}[load]
        yield from ("-lm", {"mmap": "mmap+mlock", "read": "mlock"}[load] if mlock else usual)


_LATE = frozenset({"lazy"})
"""What versions before the newest pinned release lack, all of them or the most."""
GPUS = ("cuda", "vulkan", "opencl", "hexagon")
"""The options by which a bundle uses more than a CPU; one has one of them."""


def problems(options: RunOptions, release: str | None, *, gpu: bool) -> Iterator[OptionProblem]:
    """What one point's options cannot be together, or with a release."""
    asked = given(options)
    for name, value in asked.items():
        knob = KNOBS[name]
        if knob.gpu and not gpu:
            yield OptionProblem((name,), f"{name} needs {', '.join(GPUS)}: nothing else that is built here uses one")
        if release == OLD and (knob.new or value in knob.lacks):
            what = name if knob.new else f"{name}: {value}"
            yield OptionProblem((name,), f"release {release} has no {what}", "leave it out, or take release 2026-10-01")
        if name in _LATE and release is not None and known_as(release) != release:
            message = f"version {release} may have no {name}, and nobody asked it"
            yield OptionProblem((name,), message, "leave it out, or take release 2026-10-01")
    keys, _, values = (options.kv_type if isinstance(options.kv_type, str) else "f16").partition("-")
    if release == OLD:
        if {keys, values or keys} & {"bf16", "iq4_nl"}:
            yield OptionProblem(("kv_type",), f"release {release} keeps no keys and values as {options.kv_type}")
        elif WIDTHS[values or keys] > 1:
            message = f"release {release} keeps no values as {values or keys}, for want of flash attention"
            yield OptionProblem(("kv_type",), message, f"name a type of keys alone: {keys}-f16")
    elif options.flash_attention == "off" and WIDTHS[values or keys] > 1:
        message = f"values can be kept as {values or keys} with flash attention alone, and it is off"
        yield OptionProblem(("kv_type",), message, f"name a type of keys alone: {keys}-f16")
    yield from _clashes(options, asked)


def _clashes(options: RunOptions, asked: Collection[str]) -> Iterator[OptionProblem]:
    if options.load is not None and "mmap" in asked:
        yield OptionProblem(("mmap",), "mmap and load say the same thing", "leave out one of them")
    if options.mlock and options.load in ("direct", "auto"):
        yield OptionProblem(("mlock",), f"what is loaded as {options.load} cannot be kept in memory")
    if options.lazy == "on" and (options.load in ("read", "direct") or options.mmap is False):
        yield OptionProblem(("lazy",), "rows can be read when they are needed of a mapped file alone")
    if options.affinity_strict is not None and options.affinity is None:
        yield OptionProblem(("affinity_strict",), "it says nothing without the key affinity")
    if options.split_mode == "tensor" and options.flash_attention == "off":
        yield OptionProblem(("split_mode",), "tensors are split with flash attention alone, and it is off")
    if options.main_gpu is not None and options.split_mode not in ("none", "row"):
        yield OptionProblem(("main_gpu",), "it means something with split_mode none or row alone")


def refusal(asked: Asked, device: DeviceFacts) -> str | None:
    """Why one point's options do not fit a device or a workload; `None` where they do."""
    options: RunOptions = asked.options
    for name in given(options):
        if KNOBS[name].gpu and not asked.variant.accelerator and (name != "gpu_layers" or name in asked.axes):
            return f"no GPU is used there, and {name} means nothing without"
    if isinstance(options.ubatch, int) and options.ubatch > asked.batch:
        return f"ubatch is {options.ubatch}, more than the {asked.batch} tokens of the workload's batch"
    if not isinstance(options.affinity, str):
        return None
    wanted, cores = cpus(options.affinity), getattr(asked.target, "cores", None)
    if cores is not None and not wanted <= cpus(cores):
        return f"affinity is {options.affinity}, and the target's cores are {cores}"
    if max(wanted) >= device.cores and cores is None:
        return f"affinity is {options.affinity}, and the device has {device.cores} CPUs, from 0 on"
    threads = asked.target.threads or asked.target.usable_cores or device.cores
    if options.affinity_strict and threads > len(wanted):
        return f"affinity is {options.affinity}, which is not a CPU for each of {threads} threads"
    return None


class Options(RunOptions):
    """Options of llama.cpp: how it is built, and how it runs a model."""

    toolchain: Ndk | None = Field(
        None,
        description="Compiler of bundles for aarch64 Android devices; the pinned zig with static musl where absent.",
    )
    cuda: Cuda | None = Field(None, description="Builds bundles of Jetson boards with CUDA; CPUs alone where absent.")
    vulkan: Vulkan | None = added(
        None,
        description="Builds bundles of hosts, boards and (with `toolchain`) phones with Vulkan; CPUs alone where absent.",
    )
    opencl: bool = added(False, description="Builds bundles of phones (by `toolchain`) with OpenCL, for Adreno GPUs.")
    hexagon: Hexagon | None = added(
        None,
        description="Builds bundles of phones (by `toolchain`) for the NPU of Snapdragon; CPUs alone where absent.",
    )
    ios: IosBuild | None = Field(
        None, description="Where the signed app for iPhones comes from; without it iPhones are left out."
    )
    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8_2."
    )

    @property
    def gpus(self) -> list[str]:
        """Which of `GPUS` there are."""
        return [name for name in GPUS if getattr(self, name)]

    @property
    def phone_part(self) -> PhonePart | None:
        """What phones are given besides a CPU by this project's own recipe, which takes an NDK."""
        return "opencl" if self.opencl else "hexagon" if self.hexagon is not None else None
