"""OpenCL of a bundle for x86_64: the loader and PoCL, a driver that computes on the CPU, as packages of Debian pinned by digest.

A trial's sandbox has nothing of this machine, so that the driver comes along; kernels are compiled when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import Skip, SkipKind, Variant
from meltrepro.frameworks.llamacpp import checkpoints, split
from meltrepro.frameworks.llamacpp.header import GgufHeader
from meltrepro.frameworks.prebuilt.llama import LLAMA, misfit
from meltrepro.manifest.sources import DebianPackage, Source

POCL = "opencl"
"""The device for which the compiler makes code that any OpenCL runs."""
HALVES = frozenset({"f16", "q0f16", "q8_0", "q4_0", "q4f16_1", "q3f16_1"})
"""Quantizations with floats of 16 bits."""
_PACKAGES = {
    "binutils-x86-64-linux-gnu_2.40-2_amd64": "2d7ea8a570d768224d7f2424abbe6f373d2154865a1fa7f56c80d43ecf492521",
    "libbinutils_2.40-2_amd64": "fcf55b99e5f8a78f3c8ce9b6957f1024f394cf20c196b100d308a57e43547710",
    "libbsd0_0.11.7-2_amd64": "bb31cc8b40f962a85b2cec970f7f79cc704a1ae4bad24257a822055404b2c60b",
    "libclang-cpp15_1:15.0.6-4+b1_amd64": "1fd391c424c91b885280163727aa1b079db583f5e2ebdd350336a12de68f5448",
    "libctf0_2.40-2_amd64": "3fb7b6f326be3fae4a87a3d33b9269bd06c1e4346a24bd737f265067e3b7427f",
    "libedit2_3.1-20221030-2_amd64": "1cf14abf2716d3279db12d0657a5737cf70074a1e71d3bdf73206625e3c89ce6",
    "libffi8_3.4.4-1_amd64": "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
    "libhwloc15_2.9.0-1_amd64": "4e7194b5d9adbb1a7d11a9501a4be4a4fa22876b69c73b7998056f552962c0e4",
    "libicu72_72.1-3+deb12u1_amd64": "f7f6f99c6d7b025914df2447fc93e11d22c44c0c8bdd8b6f36691c9e7ddcef88",
    "libjansson4_2.14-2_amd64": "3fc9742f9f1a37bcb9931df6074b4d1483419ef832ad5349f47323e75fc27864",
    "libllvm15_1:15.0.6-4+b1_amd64": "9f0751109ba89e65b1313a4f3e34a29977a0db6fa30ed475e2c6bd555fa9e866",
    "liblzma5_5.4.1-1+deb12u2_amd64": "3d8c29c8c21ec6007635e1b2591edf98b771c9572a085968f47452b33040f384",
    "libmd0_1.0.4-2_amd64": "03539fd30c509e27101d13a56e52eda9062bdf1aefe337c07ab56def25a13eab",
    "libpocl2-common_3.1-3+deb12u1_all": "73554bccb6238862e301c62987765a2be2292d3cb990b091db30b76eae1db2db",
    "libpocl2_3.1-3+deb12u1_amd64": "e2848ef61794c40f4d40e6403b18f71c1a1eb9e89407fce7983ff58bf2b1966e",
    "libtinfo6_6.4-4_amd64": "072d908f38f51090ca28ca5afa3b46b2957dc61fe35094c0b851426859a49a51",
    "libudev1_252.39-1~deb12u2_amd64": "6f7e08f11c4809d2e5998c775f7b423ab5ec2ce0309494b4a2615037052245e2",
    "libxml2_2.9.14+dfsg-1.3~deb12u6_amd64": "4460e39dda10a815881374217cde08474747cfa018358cd8612c14b390eff53b",
    "libz3-4_4.8.12-3.1_amd64": "6221ca25ad5abcfbe1965801029d85a88b4775320384b4b716de8fab7a4d2f7a",
    "libzstd1_1.5.4+dfsg2-5+deb12u1_amd64": "67dc1ee693e5c22b1a2be2bb70d8244b040836ce3f5dd79e006f7806bc3d9f1c",
    "ocl-icd-libopencl1_2.3.1-1_amd64": "ddd8509c0430545173752bed272c7f44f8b5f7d125265b20456207aaefbb52c8",
    "zlib1g_1:1.2.13.dfsg-1+deb12u1_amd64": "ad9f1ea0537a32c9eaecc619563a9db596a5dee33afce8393b1083f22d301e1d",
}
"""With what they need of Debian 12's; the driver links kernels by a linker."""
_LINKER = ("binutils-x86-64-linux-gnu", "libbinutils", "libctf0", "libjansson4")
_LIBRARIES = (
    *("libOpenCL.so.1", "libLLVM-15.so.1", "libclang-cpp.so.15", "libhwloc.so.15", "libudev.so.1", "libffi.so.8"),
    *("libedit.so.2", "libz3.so.4", "libz.so.1", "libtinfo.so.6", "libxml2.so.2", "libicuuc.so.72", "libicudata.so.72"),
    *("liblzma.so.5", "libbsd.so.0", "libmd.so.0", "libbfd-2.40-system.so", "libctf.so.0", "libjansson.so.4"),
    *("libzstd.so.1", "libsframe.so.0"),
)


def variant(cpu: Variant) -> Variant | Skip:
    """What runs where an engine for a CPU would; PoCL is no accelerator."""
    if cpu.machine != "x86_64":
        what = f"its OpenCL is built for x86_64 and, by an NDK (toolchain), for Android, not for other {cpu.machine}"
        return Skip(SkipKind.variant, what)
    return replace(cpu, name=f"{cpu.name}-opencl", data={"device": POCL})


def refusal(model: Path | Mapping[str, Path] | GgufHeader) -> str | None:
    """Why there is no code for GPUs of a model, or of one with such a header, that there is code for CPUs of."""
    if isinstance(model, Path | GgufHeader) or split.is_split(model):
        header = model if isinstance(model, GgufHeader) else split.header(model)
        kind, odd = header.architecture, misfit(header, whole=True)
    else:
        kind, odd = checkpoints.architecture(model), None
    return odd if kind in LLAMA else f"code for GPUs is of architecture {', '.join(LLAMA)} alone, and this is a {kind}"


def added(recipe: RecipeSource) -> RecipeSource:
    """The recipe of a CPU's bundle with OpenCL for TVM and the driver."""
    return replace(
        recipe,
        folders={**recipe.folders, "opencl": resources.images() / "mlc" / "opencl"},
        variables={**recipe.variables, "opencl": list(_LIBRARIES)},
        inputs={**recipe.inputs, **_packages()},
    )


def _packages() -> Mapping[str, Source]:
    def brought_by(name: str) -> str:
        if name.startswith("ocl-icd"):
            return name.partition("_")[0]
        return "binutils" if name.partition("_")[0] in _LINKER else "pocl-opencl-icd"

    return {
        f"opencl-{name.partition('_')[0]}.deb": DebianPackage(
            file=f"{name}.deb", digest=digest, suite="bookworm", brought_by=brought_by(name)
        )
        for name, digest in _PACKAGES.items()
    }
