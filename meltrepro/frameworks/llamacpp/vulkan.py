"""llama.cpp with Vulkan: compilers of shaders and headers as pinned packages, and a driver that computes on the CPU.

Programs find the loader while they run, so that one program serves every device that has one. Bundles of the software device bring
Mesa's driver with its loader and C library: a trial's sandbox has nothing of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meltrepro import resources
from meltrepro.build import toolchain
from meltrepro.frameworks.prebuilt import glibc
from meltrepro.manifest.sources import DebianPackage, Source

RELEASES = frozenset({"2026-10-01"})
"""Releases of llama.cpp that can be built so: older ones have no Vulkan backend."""
SOFTWARE_MACHINE = "x86_64"
"""What the software device is there for."""
_TOOLS = {
    "glslc_2025.2-1_amd64": "e05374965709159303041b104d4a26022d6ac5eb8296450364d66ae864a20367",
    "libshaderc1_2025.2-1_amd64": "2a67c8f784c65e1aa0d251819c020917405b490fbb543c6a73a52a631e476463",
    "libvulkan-dev_1.4.309.0-1_amd64": "8d329d465e16168afff58b1bd0dd6db46aac2cc3f56054a481b25a04e90b345a",
    "spirv-headers_1.6.1+1.4.309.0-1_all": "dc18db866d63680351c40ac6b6bece34cb52da64a7799ce1cc4f16f6bff4d064",
}
"""Of Debian 13, as is the system that builds: older compilers leave out shaders for what new GPUs can do."""
_DRIVER = {
    "libbsd0_0.11.7-2_amd64": "bb31cc8b40f962a85b2cec970f7f79cc704a1ae4bad24257a822055404b2c60b",
    "libdrm2_2.4.114-1+b1_amd64": "be18fb670797ba32da9628cf3e8acd83160d8db8c8dd842501dd8e401c3b5371",
    "libedit2_3.1-20221030-2_amd64": "1cf14abf2716d3279db12d0657a5737cf70074a1e71d3bdf73206625e3c89ce6",
    "libexpat1_2.5.0-1+deb12u5_amd64": "cae5ded666d8573dd33060bc66fbac21eea8b101a6b56e2af8bd590fcfa65d79",
    "libffi8_3.4.4-1_amd64": "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
    "libicu72_72.1-3+deb12u1_amd64": "f7f6f99c6d7b025914df2447fc93e11d22c44c0c8bdd8b6f36691c9e7ddcef88",
    "libllvm15_1:15.0.6-4+b1_amd64": "9f0751109ba89e65b1313a4f3e34a29977a0db6fa30ed475e2c6bd555fa9e866",
    "liblzma5_5.4.1-1+deb12u2_amd64": "3d8c29c8c21ec6007635e1b2591edf98b771c9572a085968f47452b33040f384",
    "libmd0_1.0.4-2_amd64": "03539fd30c509e27101d13a56e52eda9062bdf1aefe337c07ab56def25a13eab",
    "libtinfo6_6.4-4_amd64": "072d908f38f51090ca28ca5afa3b46b2957dc61fe35094c0b851426859a49a51",
    "libvulkan1_1.3.239.0-1_amd64": "622f28b807ba55a1f5ad1622ff83aa2c5b11fedbec074850e04c10a8f28b43d3",
    "libwayland-client0_1.21.0-1_amd64": "1f002d028b8b79eec9847c636d8886d10dfe8c884cc2bebe18086b1391c5a28d",
    "libx11-xcb1_2:1.8.4-2+deb12u2_amd64": "f5da45e1d881a793250a96613f28c471a248877f1a0f18a5c90e2a620a76c898",
    "libxau6_1:1.0.9-1_amd64": "679db1c4579ec7c61079adeaae8528adeb2e4bf5465baa6c56233b995d714750",
    "libxcb-dri3-0_1.15-1_amd64": "02699b144b9467de8636d27a76984b8f4e7b66e2d25d96df2b9677be86ee9a29",
    "libxcb-present0_1.15-1_amd64": "89383e627a4d17b9390d609b2459481bfd2029566367b43068586769e418b6e5",
    "libxcb-randr0_1.15-1_amd64": "f86e3d8ff8622871008833e9d064919b7a6237399c903c59fc330ff00f199ff5",
    "libxcb-shm0_1.15-1_amd64": "c1afcef29dc78b95c475159b181b28b1dedaf1d5aa06efd2fa6d90c73bfbe0e5",
    "libxcb-sync1_1.15-1_amd64": "3366ce715220d38dd0148b78a8e738137bade25ef7eec0698850c6f66800844f",
    "libxcb-xfixes0_1.15-1_amd64": "d744a7ebad2cbcf301c96cd6a1ab3ee856e436fc7be5cff5b7c28ac2ac181a64",
    "libxcb1_1.15-1_amd64": "fdc61332a3892168f3cc9cfa1fe9cf11a91dc3e0acacbc47cbc50ebaa234cc71",
    "libxdmcp6_1:1.1.2-3_amd64": "ecb8536f5fb34543b55bb9dc5f5b14c9dbb4150a7bddb3f2287b7cab6e9d25ef",
    "libxml2_2.9.14+dfsg-1.3~deb12u6_amd64": "4460e39dda10a815881374217cde08474747cfa018358cd8612c14b390eff53b",
    "libxshmfence1_1.3-1_amd64": "1a38142e40e3d32dc4f9a326bf5617363b7d9b4bb762fdcdd262f2192092024d",
    "libz3-4_4.8.12-3.1_amd64": "6221ca25ad5abcfbe1965801029d85a88b4775320384b4b716de8fab7a4d2f7a",
    "libzstd1_1.5.4+dfsg2-5+deb12u1_amd64": "67dc1ee693e5c22b1a2be2bb70d8244b040836ce3f5dd79e006f7806bc3d9f1c",
    "mesa-vulkan-drivers_22.3.6-1+deb12u2_amd64": "21f9ecf52886c88247d8ef92b635b8f670ab01fd7813c98f8200220aa138f4da",
    "zlib1g_1:1.2.13.dfsg-1+deb12u1_amd64": "ad9f1ea0537a32c9eaecc619563a9db596a5dee33afce8393b1083f22d301e1d",
}
"""Mesa's llvmpipe with all that it needs of Debian 12's, whose C library bundles have."""
_LIBRARIES = (
    *("libvulkan.so.1", "libLLVM-15.so.1", "libz.so.1", "libdrm.so.2", "libexpat.so.1", "libzstd.so.1", "libffi.so.8"),
    *("libxcb.so.1", "libxcb-dri3.so.0", "libxcb-present.so.0", "libxcb-xfixes.so.0", "libxcb-sync.so.1"),
    *("libxcb-randr.so.0", "libxcb-shm.so.0", "libxshmfence.so.1", "libX11-xcb.so.1", "libwayland-client.so.0"),
    *("libXau.so.6", "libXdmcp.so.6", "libedit.so.2", "libz3.so.4", "libtinfo.so.6", "libxml2.so.2", "libbsd.so.0"),
    *("libmd.so.0", "libicuuc.so.72", "libicudata.so.72", "liblzma.so.5"),
)
_LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}


@dataclass(frozen=True)
class AddedPart:
    """What a recipe of llama.cpp has besides, with Vulkan or another way to a GPU."""

    folders: Mapping[str, Path]
    variables: Mapping[str, object]
    facts: Mapping[str, object]
    """What bundles say of themselves."""
    inputs: Mapping[str, Source]


def part(machine: str, *, software: bool, ndk: bool) -> AddedPart:
    """With the software device, or with whatever a device has; what is `ndk`'s has the NDK's compilers and C library."""
    place = resources.images() / "llama.cpp" / "vulkan"
    folders = {"vulkan": place / "shaders"}
    if ndk:
        folders |= with_ndk()
    else:
        folders["toolchain"] = place / "linux"
    if software:
        folders["start/start.c"] = resources.images() / "prebuilt" / "start.c"
    variables = {
        "part": "vulkan",
        "software": software,
        "machine": machine,
        "target": f"{machine}-linux-gnu.{glibc.OLDEST}",
        "loader": _LOADERS[machine],
        "own_loader": glibc.LOADERS[machine],
        "libraries": list(_LIBRARIES),
        "libc_libraries": list(glibc.LIBRARIES),
    }
    facts = {"vulkan": "software" if software else "device"}
    if not ndk:
        facts["libc"] = glibc.VERSION if software else f"glibc {glibc.OLDEST}"
    return AddedPart(folders, variables, facts, _inputs(machine, software=software, ndk=ndk))


def with_ndk() -> Mapping[str, Path]:
    """The toolchain of phones, which are given more than the NDK."""
    place = resources.images() / "llama.cpp"
    return {"toolchain": place / "phone", "ndk": place / "ndk"}


def _inputs(machine: str, *, software: bool, ndk: bool) -> Mapping[str, Source]:
    found = packages("vulkan-", _TOOLS, "trixie", "")
    if ndk:  # which compiles nothing that runs here
        found |= {"zig.whl": toolchain.SOURCES["ziglang"]}
    if software:
        found |= packages("driver-", _DRIVER, "bookworm", "mesa-vulkan-drivers")
        found |= {f"libc-{name}": source for name, source in glibc.packages(machine).items()}
    return found


def packages(begin: str, files: Mapping[str, str], suite: str, brought_by: str) -> dict[str, Source]:
    """Packages of Debian by digest, as inputs whose names begin so; each brought by itself where nothing is named."""
    names = {name: name.partition("_")[0] for name in files}
    return {
        f"{begin}{names[name]}.deb": DebianPackage(
            file=f"{name}.deb",
            digest=digest,
            suite=suite,
            brought_by=brought_by or names[name].replace("libshaderc1", "glslc"),
        )
        for name, digest in files.items()
    }
