"""The C library that prebuilt libraries need: Debian 12's, of its packages for cross-compilers.

They are the same version for every machine, and move no more.
"""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.manifest.sources import DebianPackage, Source

VERSION = "glibc 2.36"
OLDEST = "2.28"
"""Of the C library for which the runner itself is compiled."""
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)
_PORTS = {"x86_64": "amd64", "aarch64": "arm64"}
_PACKAGES = {
    "gcc-12-cross-base_12.2.0-14cross1_all": "8dcb9dc293df9069f09dbe68d73f4a8ec2d4e3da4dcfbfe14a821d94e257e9d5",
    "libc6-amd64-cross_2.36-8cross1_all": "e410f3d2da35bccf757976d38e6a309d4d94d25c0dfde565a9662e3f75951b2c",
    "libgcc-s1-amd64-cross_12.2.0-14cross1_all": "b432ba4cfc37d81fc9efe03da3c706eaa64859513f496397c56d11c08262994f",
    "libstdc++6-amd64-cross_12.2.0-14cross1_all": "ad91d29ea6b2a819fe6f79138fee2ce4c1a1dbe7fcd355c3a8f27e8c3d13dd88",
    "libc6-arm64-cross_2.36-8cross1_all": "91936cbbee75771c360ed16513f6e734a25ca5517fe7c3e13dfd7835d7553186",
    "libgcc-s1-arm64-cross_12.2.0-14cross1_all": "af1e686fc6a416228222e7bfb68317dd2fa2685236301ae29141fc6108a66cac",
    "libstdc++6-arm64-cross_12.2.0-14cross1_all": "9cba984b64d0cf11698978fc5e0fe93c7441d29b9f42f70f1c6c734cc9e2ea41",
}


def packages(machine: str) -> Mapping[str, Source]:
    """The packages for a machine, as inputs of a recipe."""
    port = _PORTS[machine]
    return {
        f"{name.partition('_')[0]}.deb": DebianPackage(
            file=f"{name}.deb", digest=digest, suite="bookworm", brought_by=f"libstdc++6-{port}-cross"
        )
        for name, digest in _PACKAGES.items()
        if f"-{port}-" in name or "base" in name
    }
