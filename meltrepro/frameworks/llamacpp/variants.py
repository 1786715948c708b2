"""What llama.cpp is built for: CPU levels, each with static musl, with the NDK's bionic, with CUDA, Vulkan or what phones have, or as the app for iPhones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from meltrepro.frameworks.base import AUTO, Skip, SkipKind, Variant
from meltrepro.frameworks.llamacpp import cuda, phones
from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.app_recipe import app_variant
from meltrepro.targets.ios.options import IOS

_X86, _ARM = "x86_64-linux-musl", "aarch64-linux-musl"
_ALIASES = {"arm64": "aarch64", "amd64": "x86_64"}
_V3 = {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _V4 | {"avx512_vnni"}
_SSE = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16")
_CLANG = {
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
}
"""Where clang spells a feature differently from the kernel."""
MARCH = {"armv8_a": "armv8-a", "armv8_2": "armv8.2-a+dotprod+fp16"}
"""How the compilers of the NDK and of CUDA spell a level: as a whole, because their C libraries are compiled already."""
_APP_RELEASES = frozenset({"2026-10-01"})
"""What the app's project can be built of (images/llama.cpp/ios)."""


@dataclass(frozen=True)
class Level:
    """A CPU level."""

    name: str
    triple: str
    requires: frozenset[str]
    """CPU features as the kernel spells them."""
    enable: tuple[str, ...]
    """Compiler target features (clang spelling) above the triple's baseline."""


def _level(name: str, triple: str, requires: set[str], baseline: tuple[str, ...] = ()) -> Level:
    enable = (*baseline, *sorted(_CLANG.get(feature, feature) for feature in requires))
    return Level(name, triple, frozenset(requires), enable)


LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        # ggml uses AVX-VNNI in places where it makes nothing of AVX512-VNNI, and these CPUs have both.
        _level("x86_64_v4_vnni", _X86, _VNNI | {"avx_vnni"}, _SSE),
        _level("x86_64_v4_avx512vnni", _X86, _VNNI, _SSE),
        _level("x86_64_v4", _X86, _V4, _SSE),
        _level("x86_64_v3_vnni", _X86, _V3 | {"avx_vnni"}, _SSE),
        _level("x86_64_v3", _X86, _V3, _SSE),
        _level("x86_64_v2", _X86, {"ssse3", "sse4_1", "sse4_2", "popcnt"}),
        _level("armv8_2", _ARM, {"asimd", "asimddp", "asimdhp"}),
        _level("armv8_a", _ARM, {"asimd"}),
    )
}
"""By name; of those that a CPU can run, the first is the best."""


def on_cpu(level: Level) -> Variant:
    """Static musl, for any Linux."""
    return Variant(level.name, level.name, level.triple, "musl", level.requires, data={"features": list(level.enable)})


def with_ndk(level: Level, api: int) -> Variant:
    """Linked to an Android device's own C library."""
    return Variant(
        f"{level.name}-android{api}",
        level.name,
        f"aarch64-linux-android{api}",
        "bionic",
        level.requires,
        data={"features": list(level.enable), "api": api, "march": MARCH[level.name]},
    )


def with_cuda(level: Level, build: cuda.CudaBuild, *, layers: bool = True) -> Variant:
    """For a Jetson board's GPU, with the board's own C library, which NVIDIA's libraries need; unused without `layers`."""
    return Variant(
        f"{level.name}-jetpack{build.jetpack}",
        level.name,
        cuda.TRIPLE,
        "glibc",
        level.requires,
        accelerator=f"CUDA {build.cuda} sm_{build.arch}" if layers else "",
        data={"features": list(level.enable), "jetpack": build.jetpack},
    )


def with_vulkan(base: Variant, driver: str, *, layers: bool = True) -> Variant:
    """On Linux with the C library of the device, or of Debian 12 where the driver comes along; else with the NDK's."""
    software = driver == "software"
    return replace(
        base,
        name=f"{base.name}-{'llvmpipe' if software else 'vulkan'}",
        libc="bionic" if "api" in base.data else "glibc",
        accelerator=("Vulkan, a software device" if software else "Vulkan") if layers else "",
        software=software and layers,
        data={**base.data, "vulkan": driver},
    )


def with_part(base: Variant, kind: phones.PhonePart, *, layers: bool = True) -> Variant:
    """What the NDK links, with a phone's GPU or NPU; unused without `layers`."""
    name = phones.NAMES[kind] if layers else ""
    return replace(base, name=f"{base.name}-{kind}", accelerator=name, data={**base.data, "part": kind})


def phone_part(variant: Variant) -> phones.PhonePart | None:
    """What it has of a phone besides its CPU."""
    return next((kind for kind in phones.NAMES if variant.data.get("part") == kind), None)


TOOLS = on_cpu(LEVELS["x86_64_v3"])
"""The level of quantizer and scorer on this machine, fixed so that what they make does not depend on who runs them."""


def choose(options: Options, release: str, device: DeviceFacts, level: str) -> Variant | Skip:
    """What a device runs, or why there is nothing for it."""
    arch = _ALIASES.get(device.arch.lower(), device.arch.lower())
    if arch == IOS:
        return _app(options, release, device, level)
    found = _level_for(arch, device.features, device.arch, level)
    if isinstance(found, Skip):
        return found
    if options.vulkan is not None and not device.virtual:
        return _vulkan(options, options.vulkan.driver, found, device)
    if options.phone_part is not None and not device.virtual:
        return _phone(options, options.phone_part, found, device)
    if arch != "aarch64":
        return on_cpu(found)
    if device.virtual:  # the lab's devices have neither bionic nor a GPU
        return on_cpu(found)
    if options.toolchain is not None and device.kind == "android":
        return _ndk(options.toolchain, found, device)
    if options.cuda is not None and device.kind == "jetson":
        build, there = cuda.BUILDS[options.cuda.jetpack], device.facts.get("l4t", "")
        if there and there.partition(".")[0] != build.l4t:
            what = f"it is built with CUDA of JetPack {build.jetpack} (L4T {build.l4t})"
            return Skip(SkipKind.options, f"{what}, and the device has L4T {there}")
        return with_cuda(found, build, layers=options.gpu_layers != 0)
    return on_cpu(found)


def _ndk(toolchain: Ndk, level: Level, device: DeviceFacts) -> Variant | Skip:
    why = toolchain.misfit(device)
    return with_ndk(level, toolchain.api) if why is None else Skip(SkipKind.options, why)


def _phone(options: Options, kind: phones.PhonePart, level: Level, device: DeviceFacts) -> Variant | Skip:
    if device.kind != "android" or level.triple != _ARM or options.toolchain is None:
        return Skip(SkipKind.options, f"its {phones.NAMES[kind]} is built by an NDK, for phones of aarch64 alone")
    found = _ndk(options.toolchain, level, device)
    return found if isinstance(found, Skip) else with_part(found, kind, layers=options.gpu_layers != 0)


def _vulkan(options: Options, driver: str, level: Level, device: DeviceFacts) -> Variant | Skip:
    layers = options.gpu_layers != 0
    if driver == "software":
        if level.triple != _X86:
            return Skip(SkipKind.options, f"its software device is built for x86_64 alone, not for {device.arch}")
        return with_vulkan(on_cpu(level), driver, layers=layers)
    if device.kind == "android":
        if options.toolchain is None:
            return Skip(SkipKind.options, "Vulkan of phones takes the NDK, and its options name none: toolchain")
        found = _ndk(options.toolchain, level, device)
        return found if isinstance(found, Skip) else with_vulkan(found, driver, layers=layers)
    if device.facts.get("sandbox", "bare") != "bare":
        why = "its trials run in a sandbox, which has no driver of the device: sandbox: bare, or vulkan: {driver: software}"
        return Skip(SkipKind.options, why)
    return with_vulkan(on_cpu(level), driver, layers=layers)


def _level_for(arch: str, features: Collection[str], shown: str, wanted: str) -> Level | Skip:
    offered = [level for level in LEVELS.values() if level.triple.partition("-")[0] == arch]
    if not offered:
        return Skip(SkipKind.variant, f"it has no build for {shown}")
    named = [level for level in offered if wanted in (AUTO, level.name)]
    if not named:
        return Skip(SkipKind.variant, f"it has no CPU level {wanted} for {shown}")
    best = next((level for level in named if level.requires.issubset(features)), None)
    if best is not None:
        return best
    lacking = ", ".join(sorted(named[-1].requires.difference(features)))
    return Skip(SkipKind.variant, f"the CPU lacks {lacking}, which {named[-1].name} needs")


def _app(options: Options, release: str, device: DeviceFacts, level: str) -> Variant | Skip:
    if release not in _APP_RELEASES:
        return Skip(SkipKind.variant, f"release {release} has no build for {device.arch}")
    return app_variant(options.ios, device, level)


def extra(options: Options) -> tuple[Variant, ...]:
    """The levels that are to be built whether a target needs them or not, in every way that aarch64 is built."""
    found: list[Variant] = []
    for level in (LEVELS[name] for name in options.isas):
        arm = level.triple == _ARM
        if options.vulkan is not None and not (arm and options.vulkan.driver == "software"):
            base = with_ndk(level, options.toolchain.api) if arm and options.toolchain is not None else on_cpu(level)
            found.append(with_vulkan(base, options.vulkan.driver))
            continue
        if arm and options.toolchain is not None:
            base = with_ndk(level, options.toolchain.api)
            found.append(base if options.phone_part is None else with_part(base, options.phone_part))
        if arm and options.cuda is not None:
            found.append(with_cuda(level, cuda.BUILDS[options.cuda.jetpack]))
        if not (arm and (options.toolchain or options.cuda)):
            found.append(on_cpu(level))
    return tuple(found)
