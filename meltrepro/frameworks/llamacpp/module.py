"""llama.cpp: CPU levels, quantizations, and how its quantizer is called."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, JsonValue

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.chat.template import ChatTemplate
from meltrepro.frameworks.base import (
    AS_IS,
    AUTO,
    RUN,
    Asked,
    ContextUse,
    Framework,
    Look,
    ModelStep,
    OptionProblem,
    Purpose,
    Release,
    Scorer,
    Skip,
    SkipKind,
    Variant,
    Weights,
)
from meltrepro.frameworks.llamacpp import (
    adapters,
    checkpoints,
    convert,
    cuda,
    fit,
    gguf,
    mixtures,
    phones,
    split,
    untie,
    variants,
    vulkan,
)
from meltrepro.frameworks.llamacpp.kits import idle_toolchain
from meltrepro.frameworks.llamacpp.options import (
    ALL_LAYERS,
    GPUS,
    KNOBS,
    Options,
    cache_bits,
    given,
    problems,
    refusal,
)
from meltrepro.frameworks.llamacpp.releases import RELEASES as RELEASES
from meltrepro.frameworks.llamacpp.releases import VENDORED, known_as, packaged_as, version
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.frameworks.llamacpp.synthetic import GgufWeights
from meltrepro.manifest.shapes import ModelShape
from meltrepro.manifest.sources import Source, SyntheticSource, is_checkpoint, is_split
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.app_recipe import (
    APP_LEVEL,
    APP_VARIANT,
    AppParts,
    IosBuild,
    Library,
    ThirdParty,
    app_recipe,
    app_servers,
    idle_app,
    pinned_app,
)

_TYPES: Mapping[str, tuple[str, float]] = {
    "f32": ("F32", 32.0),
    "f16": ("F16", 16.0),
    "q8_0": ("Q8_0", 8.5),
    "q6_K": ("Q6_K", 6.6),
    "q5_K": ("Q5_K_M", 5.7),
    "q5_1": ("Q5_1", 6.0),
    "q5_0": ("Q5_0", 5.5),
    "q4_K": ("Q4_K_M", 4.9),
    "q4_1": ("Q4_1", 5.0),
    "q4_0": ("Q4_0", 4.6),
    "q3_K": ("Q3_K_M", 4.0),
    "q2_K": ("Q2_K", 3.2),
}
"""Our names -> the quantizer's, and bits per weight for estimates. MELT's q3_K and q4_K are the medium mixes."""
UNTIE = "untie-output-1"
"""Name and version of the rewrite; part of a model's identity."""
_NEED_UNTYING = frozenset({"2024-02-27"})
"""Releases that cannot load a llama model whose output matrix is the embedding's (that came in March 2024)."""


class LlamaCpp:
    """llama.cpp behind the seam of frameworks."""

    kind = "llama.cpp"
    options: type[BaseModel] = Options
    files: Collection[tuple[str, ...]] = (
        ("toolchain", "ndk"),
        ("hexagon", "sdk"),
        ("ios", "ipa"),
        ("ios", "xcframework"),
    )
    scorer: Scorer | None = PerplexityScorer()
    weights: Weights | None = GgufWeights()
    context_uses: Set[ContextUse] = frozenset(ContextUse)

    def releases(self) -> Mapping[str, Release]:
        return RELEASES

    def version(self, name: str) -> Release | None:
        return version(name)

    def ordered_as(self, release: str) -> str:
        return packaged_as(release)

    def quantizations(self) -> Mapping[str, float]:
        return {**{name: bits for name, (_, bits) in _TYPES.items()}, AS_IS: 16.0}

    # -- what is built --------------------------------------------------------------------------------------------

    def levels(self) -> Collection[str]:
        return (*variants.LEVELS, APP_LEVEL)

    def check_options(self, options: Options, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        """Names that nobody knows, and what no target of the manifest has any use for."""
        for i, level in enumerate(options.isas):
            if level not in self.levels():
                message = f"unknown CPU level of {self.kind} {level!r}"
                yield OptionProblem(("isas", i), message, value=level, known=self.levels())
        yield from idle_toolchain(options.toolchain, targets)
        yield from idle_app(options.ios, options.isas, targets)
        if options.cuda is not None:
            yield from self._check_cuda(options.cuda.jetpack, release, targets)
        if options.vulkan is not None and release not in vulkan.RELEASES:
            only = ", ".join(sorted(vulkan.RELEASES))
            yield OptionProblem(("vulkan",), f"with Vulkan, {self.kind} is built of release {only} alone")
        if options.phone_part is not None:
            yield from self._check_phone(options.phone_part, options, release, targets)
        if len(options.gpus) > 1:
            message = f"one bundle is built with one of {', '.join(GPUS)}, and here are {' and '.join(options.gpus)}"
            yield OptionProblem((options.gpus[-1],), message, "make a framework of each, all of this kind")
        yield from problems(options, release, gpu=bool(options.gpus))

    def _check_cuda(self, jetpack: str, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        build = cuda.BUILDS.get(jetpack)
        if build is None:
            message = f"unknown JetPack for {self.kind} {jetpack!r}"
            yield OptionProblem(("cuda", "jetpack"), message, value=jetpack, known=cuda.BUILDS)
        elif release not in build.releases:
            message = (
                f"with CUDA {build.cuda}, {self.kind} is built of release {', '.join(sorted(build.releases))} alone"
            )
            why = "older ones cannot do without the virtual memory that Orin lacks"
            yield OptionProblem(("cuda",), message, why)
        if "jetson" not in targets:
            message = "CUDA is built for Jetson boards, and no target is one"
            yield OptionProblem(("cuda",), message, "leave it out: all else runs on CPUs")

    def _check_phone(
        self, kind: phones.PhonePart, options: Options, release: str | None, targets: Collection[str]
    ) -> Iterator[OptionProblem]:
        name = phones.NAMES[kind]
        if release not in phones.RELEASES:
            only = ", ".join(sorted(phones.RELEASES))
            yield OptionProblem((kind,), f"with {name}, {self.kind} is built of release {only} alone")
        if options.toolchain is None:
            yield OptionProblem(
                (kind,), f"{name} is built by an Android NDK", "say where it is: toolchain: {ndk: PATH}"
            )
        elif "android" not in targets:
            yield OptionProblem((kind,), f"{name} is built for phones, and no target is one", "leave it out")

    def option_refusal(self, asked: Asked, device: DeviceFacts) -> str | None:
        return refusal(asked, device)

    def variant(self, options: Options, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        return variants.choose(options, release.name, device, level)

    def reference(self, release: Release) -> tuple[Framework, Release]:
        return self, release

    def extra_variants(self, options: Options, release: Release) -> Sequence[Variant]:
        return variants.extra(options)

    def tool_variant(self, purpose: Purpose) -> Variant:
        return convert.VARIANT if purpose == "convert" else variants.TOOLS

    def recipe(self, options: Options, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        """Runner, sampler, agent, llama-bench and perplexity; the quantizer alone; the converter; the app for iPhones."""
        labels = {
            "org.opencontainers.image.version": release.name,
            "org.opencontainers.image.revision": release.commit,
            "org.opencontainers.image.source": "https://github.com/ggml-org/llama.cpp",
            "org.opencontainers.image.licenses": "MIT",
        }
        if variant == APP_VARIANT and options.ios is not None:
            return app_recipe(self.kind, options.ios, release, _app(options.ios, release), labels)
        if purpose == "convert":
            return convert.recipe(release, variant, labels)
        tools = ["melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"]
        ndk = options.toolchain if "api" in variant.data else None
        build = cuda.BUILDS[str(variant.data["jetpack"])] if "jetpack" in variant.data else None
        inputs = dict(release.sources)
        facts: dict[str, object] = {}
        variables: dict[str, object] = {
            "release": release.name,
            "commit": release.commit,
            "isa": variant.level,
            "triple": variant.triple,
            "features": variant.data["features"],
            "vendored": release.name in RELEASES or version(release.name) is not None,
            "tools": tools if purpose == RUN else ["quantize"],
            "facts": facts,
        }
        place = resources.images() / "llama.cpp"
        folders = {"": place / "recipe", "toolchain": place / ("cuda" if build else "ndk" if ndk else "zig")}
        if release.name not in RELEASES:
            folders |= {
                "versions": place / "versions",
                f"releases/{release.name}.cmake": place / "versions/release.cmake",
            }
        if purpose == RUN:
            folders |= {"engine": place / "engine", "runner": resources.runner()}
        if ndk is not None:
            given = {"api": variant.data["api"], "march": variant.data["march"]}
            # The version is what the NDK says of itself when it is unpacked.
            facts = {"libc": variant.libc, **given, "ndk": "$revision"}
            variables |= {**given, "facts": facts}
            inputs["ndk"] = ndk.source
        if build is not None:
            variables |= cuda.variables(build, variants.MARCH[variant.level])
            inputs |= build.sources
        if driver := str(variant.data.get("vulkan", "")):
            found = vulkan.part(variant.machine, software=driver == "software", ndk=ndk is not None)
            folders |= found.folders
            variables |= {**found.variables, "facts": {**facts, **found.facts}}
            inputs |= found.inputs
        if kind := variants.phone_part(variant):
            added = phones.part(kind, options.hexagon.source if options.hexagon else None)
            folders |= added.folders
            variables |= {**added.variables, "facts": {**facts, **added.facts}}
            inputs |= added.inputs
        return RecipeSource(
            name=f"llama.cpp/{release.name}/{purpose}/{variant.name}",
            folders=folders,
            variables=variables,
            inputs=inputs,
            triple=variant.triple,
            phases=("configure", "compile", "install"),
            labels=labels,
        )

    # -- models ---------------------------------------------------------------------------------------------------

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        """Converted or joined where it must be, untied where the release needs it, quantized.

        The quantizer uses every core. Rows are quantized one by one, so their number changes no byte.
        """
        steps: list[ModelStep] = []
        if isinstance(source, SyntheticSource) and (why := fit.shape_refusal(source.shape, release.name)):
            return Skip(SkipKind.model, why)
        if is_checkpoint(source):
            if not convert.converts(release.name):
                return Skip(SkipKind.model, f"release {release.name} has no converter for checkpoints")
            command = convert.command("f32" if quantization == "f32" else "f16")
            steps.append(ModelStep("convert", "convert", command, shared=True))
        if is_split(source):
            steps.append(split.STEP)
        if release.name in _NEED_UNTYING:
            steps.append(ModelStep(UNTIE, run=untie.untie))
        if quantization != AS_IS:
            kind = _TYPES[quantization][0]
            quantizer = ("/bundle/bin/quantize", "--allow-requantize", "/source", "/out/model", kind)
            steps.append(ModelStep("quantize", "quantize", quantizer))
        return steps

    def model_bytes(self, shape: ModelShape, quantization: str, release: Release) -> int | None:
        return mixtures.model_bytes(shape, quantization, known_as(release.name))

    def parameter_count(self, path: Path) -> int | None:
        return gguf.parameters(path)

    def check_model(self, path: Path) -> None:
        gguf.check(path)

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        if split.is_split(files):
            split.header(files)
        else:
            checkpoints.check(files)

    def adapter_refusal(self, release: Release) -> str | None:
        return adapters.refusal(release.name)

    def check_adapter(self, adapter: Path, model: Path | None) -> None:
        adapters.check(adapter, model)

    def name_refusal(self, name: str) -> str | None:
        return gguf.name_refusal(name)

    def look(
        self, options: Options, model: Path | Mapping[str, Path], release: Release, template: ChatTemplate | None = None
    ) -> Look:
        if isinstance(model, Path) or split.is_split(model):
            return fit.look(model, release.name, template, options.kv_type)
        return checkpoints.look(model, release.name, template)

    def describe(self, model: Path, release: str) -> str | None:
        return fit.describe(model, release)

    def cache_bits(self, options: Options) -> float:
        return cache_bits(options.kv_type if isinstance(options.kv_type, str) else "f16")

    # -- what others keep of it -----------------------------------------------------------------------------------

    def request(self, options: Options, variant: Variant) -> Mapping[str, JsonValue]:
        """Layers on the GPU, of which a bundle for CPUs has none, how the model file is read, and what is given besides."""
        asked = {name: value for name, value in given(options).items() if variant.accelerator or not KNOBS[name].gpu}
        layers = ALL_LAYERS if options.gpu_layers in (None, "all") else options.gpu_layers
        usual = {"gpu_layers": layers if variant.accelerator else 0, "mmap": options.mmap}
        if options.load is not None:  # which says the same
            del usual["mmap"]
        if asked.get("cpu_moe") == "all":
            asked["cpu_moe"] = ALL_LAYERS
        return asked | usual

    def pinned(self, options: Options) -> Mapping[str, JsonValue]:
        ways = {name: getattr(options, name) for name in ("toolchain", "cuda", "vulkan", "hexagon")}
        found: dict[str, JsonValue] = {"opencl": True} if options.opencl else {}
        found |= {name: way.model_dump(mode="json") for name, way in ways.items() if way is not None}
        return found | ({"ios": pinned_app(options.ios)} if options.ios is not None else {})

    def withholds(self, options: Options, source: str) -> bool:
        """NDKs, Qualcomm's SDK, what is NVIDIA's, and signed apps, which name their team and the phones that may start them."""
        kits = [each.source for each in (options.toolchain, options.hexagon) if each is not None]
        own = [*kits, options.ios.file if options.ios else None]
        names = [key_of(each) for each in own if each is not None]
        return source in names or source.startswith(("pypi:nvidia-", "debian:nvidia-"))

    def servers(self, options: Options) -> Mapping[tuple[str, ...], str]:
        return app_servers(options.ios)

    def withheld_variants(self) -> Collection[str]:
        return (APP_LEVEL,)


def _app(ios: IosBuild, release: Release) -> AppParts:
    """Its part of the app: the engine's sources, and its own library, which the Mac makes of all sources or gets whole."""
    place = resources.images() / "llama.cpp"
    sources = ThirdParty("source.tar.gz", "llama.cpp", VENDORED)
    parts = AppParts(
        {"llama.cpp/engine": place / "engine", "ios/project.yml.j2": place / "ios" / "project.yml.j2"},
        release.sources,
        (sources,),
        Library("llama.cpp", "build-xcframework.sh", "build-apple/llama.xcframework"),
    )
    if ios.file is None:
        return parts
    headers = replace(sources, only=("include/", "ggml/include/", "LICENSE"))
    library = ThirdParty("xcframework.zip", "llama.xcframework")
    inputs = {**release.sources, library.input: ios.file}
    return replace(parts, inputs=inputs, third_party=(library, headers), library=None)


FRAMEWORK = LlamaCpp()
