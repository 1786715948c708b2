"""Bundles of Android devices that an NDK links to the device's own C library, bionic, for engines from wheels.

A framework says what its engine's library is there (`for_android`, `linked`); phones of the lab, and manifests without an
NDK, have what other Linux has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import JsonValue

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import AUTO, RUN, OptionProblem, Purpose, Release, Skip, SkipKind, Variant
from meltrepro.frameworks.llamacpp.kits import Ndk, idle_toolchain
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts

API = "api"
"""What only the data of such a variant has: the API level."""
_TOOLS = ("melt-runner", "melt-scorer", "melt-sampler", "melt-agent")


class AndroidFramework(WheelFramework):
    """Such an engine whose options have a `toolchain`."""

    files: Collection[tuple[str, ...]] = (("toolchain", "ndk"),)

    def usual(self, options: Any, cpu: Variant) -> Variant | Skip:
        """What runs where no NDK links it."""
        return cpu

    def for_android(self, options: Any, cpu: Variant) -> Variant:
        """What the NDK links for a CPU; `march` spells its level as compilers do."""
        return bionic(cpu, options.toolchain, march="armv8-a")

    def linked(self, recipe: RecipeSource, release: Release) -> RecipeSource:
        """The recipe of such a bundle with the engine's library."""
        raise NotImplementedError

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        yield from super().check_options(options, release, targets)
        yield from idle_toolchain(options.toolchain, targets)

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        found = super().variant(options, release, device, level)
        if isinstance(found, Skip):
            return found
        phone = device.kind == "android" and not device.virtual and found.machine == "aarch64"
        if not phone or options.toolchain is None:
            return self.usual(options, found)
        why = options.toolchain.misfit(device)
        return self.for_android(options, found) if why is None else Skip(SkipKind.options, why)

    def extra_variants(self, options: Any, release: Release) -> Sequence[Variant]:
        found: list[Variant | Skip] = []
        for each in super().extra_variants(options, release):
            by_ndk = each.machine == "aarch64" and options.toolchain is not None
            found.append(self.for_android(options, each) if by_ndk else self.usual(options, each))
        return [each for each in found if isinstance(each, Variant)]

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        found = super().recipe(options, release, variant, purpose)
        if purpose != RUN or API not in variant.data:
            return found
        return self.linked(_by_ndk(found, variant, options.toolchain), release)

    def pinned(self, options: Any) -> Mapping[str, JsonValue]:
        return {} if options.toolchain is None else {"toolchain": options.toolchain.model_dump(mode="json")}

    def withholds(self, options: Any, source: str) -> bool:
        return options.toolchain is not None and source == key_of(options.toolchain.source)


def bionic(cpu: Variant, ndk: Ndk, *, march: str) -> Variant:
    """What runs in place of a variant for Linux."""
    return replace(
        cpu,
        name=f"{cpu.name}-android{ndk.api}",
        triple=f"{cpu.machine}-linux-android{ndk.api}",
        libc="bionic",
        data={API: ndk.api, "march": march},
    )


def _by_ndk(recipe: RecipeSource, variant: Variant, ndk: Ndk) -> RecipeSource:
    """The recipe of a bundle for Linux, with the NDK in place of zig and of a C library, and without the wheels' libraries."""
    wheels: Any = recipe.variables["wheels"]
    licenses = {
        wheel: {name: place for name, place in parts.items() if name.startswith("licenses/")}
        for wheel, parts in wheels.items()
    }
    given = {API: variant.data[API], "march": variant.data["march"], "tools": list(_TOOLS), "wheels": licenses}
    return replace(
        recipe,
        folders={**recipe.folders, "toolchain": resources.images() / "llama.cpp" / "ndk"},
        variables={**recipe.variables, **given},
        inputs={
            **{name: source for name, source in recipe.inputs.items() if not name.endswith(".deb")},
            "ndk": ndk.source,
        },
        triple=variant.triple,
    )
