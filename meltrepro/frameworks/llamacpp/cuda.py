"""llama.cpp with CUDA for Jetson boards: which compilers, headers and libraries its recipe takes, and what it makes of them.

Programs that run here come from NVIDIA's packages for x86_64, what they compile for from those for aarch64; the C++ compiler
is Debian's, because NVIDIA's takes no clang as new as zig's, and none with libc++. All of NVIDIA's files are fetched when
they are needed and passed on by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meltrepro.manifest.sources import DebianPackage, PypiSource, Source

TRIPLE = "aarch64-linux-gnu"


@dataclass(frozen=True)
class CudaBuild:
    """How llama.cpp is built with CUDA for one release of JetPack."""

    jetpack: str
    l4t: str
    """Linux for Tegra that the release of JetPack belongs to: the number before the first dot."""
    cuda: str
    arch: str
    """GPU that machine code is made for, as in sm_87 without its prefix."""
    releases: frozenset[str]
    """Releases of llama.cpp that can be built so."""
    sources: Mapping[str, Source]
    """Compilers, headers and libraries by the names under which the recipe finds them."""
    variables: Mapping[str, object]
    """What the recipe asks for because of them."""


_GCC_PACKAGES = {
    "binutils-aarch64-linux-gnu_2.40-2_amd64": "3d6f64a7a4ed6d73719f8fa2e85fd896f58ff7f211a6683942ba93de690aaa66",
    "cpp-12-aarch64-linux-gnu_12.2.0-14cross1_amd64": "5921df4ad56e34e6257a1caf862474845aab6548ba7ae7852e8cdd7cb622394e",
    "g++-12-aarch64-linux-gnu_12.2.0-14cross1_amd64": "3693e31fe2b42fcbdd92fef3e5578e91dd86af30e3d2c5fff3f9821e34a1cb91",
    "gcc-12-aarch64-linux-gnu_12.2.0-14cross1_amd64": "43747bbcd46a4062e66e855090b8ed9c2e06a93ae5a69fb304beebbc8c36d11f",
    "gcc-12-cross-base_12.2.0-14cross1_all": "8dcb9dc293df9069f09dbe68d73f4a8ec2d4e3da4dcfbfe14a821d94e257e9d5",
    "libbinutils_2.40-2_amd64": "fcf55b99e5f8a78f3c8ce9b6957f1024f394cf20c196b100d308a57e43547710",
    "libc6-arm64-cross_2.36-8cross1_all": "91936cbbee75771c360ed16513f6e734a25ca5517fe7c3e13dfd7835d7553186",
    "libc6-dev-arm64-cross_2.36-8cross1_all": "5e4cf6abf0e89e89c4b3006bb8b7dc47aa831df25d94df9134929b8b968cacb4",
    "libgcc-12-dev-arm64-cross_12.2.0-14cross1_all": "ff1324e262bae2c3aad685c2ed52bd531ab0a2a337a0fe35c3b720947d55b2ba",
    "libgcc-s1-arm64-cross_12.2.0-14cross1_all": "af1e686fc6a416228222e7bfb68317dd2fa2685236301ae29141fc6108a66cac",
    "libgmp10_2:6.2.1+dfsg1-1.1_amd64": "187aedef2ed763f425c1e523753b9719677633c7eede660401739e9c893482bd",
    "libisl23_0.25-1.1_amd64": "ebff0b2f8b220c74224197523019366e97ee4770d464bebc48e4865114e4da0e",
    "libjansson4_2.14-2_amd64": "3fc9742f9f1a37bcb9931df6074b4d1483419ef832ad5349f47323e75fc27864",
    "libmpc3_1.3.1-1_amd64": "d7f79544790e44f9b0c8cb9034a18c58d37f8702a15f32539050718679e52f80",
    "libmpfr6_4.2.0-1_amd64": "37b7a2b4e78890b6a074777f27b96c84f58e81558ba08410c2b6c0ca4a4ad77b",
    "libstdc++-12-dev-arm64-cross_12.2.0-14cross1_all": "942b5710c6b9792578dfa64f7a4633bc0d3cb205b56ded11297e240ff824f5da",
    "libstdc++6-arm64-cross_12.2.0-14cross1_all": "9cba984b64d0cf11698978fc5e0fe93c7441d29b9f42f70f1c6c734cc9e2ea41",
    "linux-libc-dev-arm64-cross_6.1.4-1cross1_all": "66457f015d16b7d372db6591cff38db0da928362ff2ea1fa75491e28f6904d81",
}
"""Debian 12's g++ 12 for aarch64, and the libraries that it is made of: its glibc, 2.36, is older than JetPack 7's."""


_GCC: Mapping[str, Source] = {
    f"gcc-{name.partition('_')[0]}.deb": DebianPackage(
        file=f"{name}.deb", digest=digest, suite="bookworm", brought_by="g++-12-aarch64-linux-gnu"
    )
    for name, digest in _GCC_PACKAGES.items()
}


def _wheel(name: str, version: str, tags: str, digest: str) -> PypiSource:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-{tags}.whl"
    return PypiSource(pypi=name, version=version, filename=filename, digest=digest)


_HOST, _DEVICE = "manylinux2014_x86_64.manylinux_2_17_x86_64", "manylinux2014_aarch64.manylinux_2_17_aarch64"
_V13 = "13.2.86"
_SYSTEM = ("libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1")

BUILDS: Mapping[str, CudaBuild] = {
    "7.2": CudaBuild(
        jetpack="7.2",
        l4t="39",
        cuda="13.2",
        arch="87",
        releases=frozenset({"2026-10-01"}),
        sources={
            **_GCC,
            "host-nvcc.whl": _wheel(
                "nvidia-cuda-nvcc", _V13, _HOST, "7d3f56c8d705bad35bbba69eb0470d90856fd5d4dc48c6a6173aaf1e9f887cf5"
            ),
            "host-nvvm.whl": _wheel(
                "nvidia-nvvm",
                _V13,
                "manylinux2010_x86_64.manylinux_2_12_x86_64",
                "a9244f3209922d655612c11ebb4117ea1f80983cb2b215c9cccded127282cebc",
            ),
            "device-cccl.whl": _wheel(
                "nvidia-cuda-cccl", _V13, _DEVICE, "05f2a2123cd7bc13b731d219d27e50281150a7985d5955bffcde0e966cefe0a2"
            ),
            "device-crt.whl": _wheel(
                "nvidia-cuda-crt", _V13, _DEVICE, "3294669c379ef3382804bc077fec22a48753a743c75c83c1ee3c224bb049423f"
            ),
            "device-culibos.whl": _wheel(
                "nvidia-cuda-culibos", _V13, _DEVICE, "f7e236ad34e871b49c46613c96fed7cc1bf7b525b57a944fc49eda859566eb61"
            ),
            "device-runtime.whl": _wheel(
                "nvidia-cuda-runtime", _V13, _DEVICE, "37844957894bfdecf90243568d21a2cb251b66106915b71459a23c8e6ef2da69"
            ),
        },
        variables={
            "toolkit": "wheels",
            "cudart": "static",
            "cublas": "libcublas.so.13",
            "glibc": "2.39",
            "needed": list(_SYSTEM),
        },
    ),
    "6.2": CudaBuild(
        jetpack="6.2",
        l4t="36",
        cuda="12.4",
        arch="87",
        releases=frozenset({"2026-10-01"}),
        sources={
            **_GCC,
            "host-nvcc.deb": DebianPackage(
                file="nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb",
                digest="cd5fe85aee38d108b315f408a688641478f2402622a10c677478eb7a6c4e5319",
                suite="trixie",
                brought_by="nvidia-cuda-toolkit",
            ),
            "device-nvcc.whl": _wheel(
                "nvidia-cuda-nvcc-cu12",
                "12.4.131",
                "manylinux2014_aarch64",
                "00ba32f3d7928548455baa877e748a4676ba0731cfc73d4213336fc67bdc87e9",
            ),
            "device-runtime.whl": _wheel(
                "nvidia-cuda-runtime-cu12",
                "12.4.127",
                "manylinux2014_aarch64",
                "961fe0e2e716a2a1d967aab7caee97512f71767f852f67432d572e36cb3a11f3",
            ),
            "device-cccl.whl": _wheel(
                "nvidia-cuda-cccl-cu12",
                "12.4.127.post1",
                "manylinux2014_aarch64",
                "641ce4d9c335d4b9e0955ec4f94aa46f5a765356cc38cc4bbf65c7b40f8a4450",
            ),
        },
        variables={
            # The packages have no static library, and boards with JetPack 6 must not get one of the wheels' anyway.
            "toolkit": "debian",
            "cudart": "shared",
            "cublas": "libcublas.so.12",
            "glibc": "2.35",
            "needed": [*_SYSTEM, "libcudart.so.12"],
        },
    ),
}
"""By release of JetPack. What 7.2 makes was linked; what 6.2 makes never was."""


def variables(build: CudaBuild, march: str) -> Mapping[str, object]:
    """What this toolchain asks for besides what every recipe of llama.cpp does, and what its bundles say of themselves."""
    return {
        **build.variables,
        "jetpack": build.jetpack,
        "arch": build.arch,
        "march": march,
        "machine": "AArch64",
        "loader": "/lib/ld-linux-aarch64.so.1",
        "gcc": "12",
        "facts": {
            "libc": "glibc",
            **{key: build.variables[key] for key in ("glibc", "cudart", "cublas")},
            "march": march,
            "jetpack": build.jetpack,
            "cuda": build.cuda,
            "gpu": f"sm_{build.arch}",
        },
    }
