"""What converts checkpoints for llama.cpp: its own scripts, their packages, and how they are called.

The scripts come from the same source as the release. The packages are those that the release of 2026 asks for (numpy
2.2.6, transformers 4.57.6), and serve both releases; torch is Debian's (`build.interpreter`).
"""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro import resources
from meltrepro.build.model import Interpreter, RecipeSource
from meltrepro.frameworks.base import Release, Variant
from meltrepro.manifest.sources import PypiSource, Source

VARIANT = Variant("x86_64", "x86_64", "x86_64-linux-gnu", "glibc")
"""Of the bundle: wheels choose at run time what the CPU has, and only move and widen numbers."""
PYTHON = "python3.13"
"""That of `build.interpreter`, for which the wheels are."""
INTERPRETER = (
    *("/bundle/lib/ld-linux-x86-64.so.2", "--library-path", "/bundle/lib"),
    *("/bundle/bin/python3", "-I", "-S", "-B"),
)
"""How a bundle's own is started, with its own loader."""
_PACKAGES: Mapping[str, tuple[str, str]] = {
    "certifi": ("2025.11.12", "97de8790030bbd5c2d96b7ec782fc2f7820ef8dba6db909ccf95449f2d062d4b"),
    "charset-normalizer": ("3.4.4", "a8a8b89589086a25749f471e6a900d3f662d1d3b6e2e59dcecf787b1cc3a1894"),
    "filelock": ("3.20.0", "339b4732ffda5cd79b13f4e2711a31b0365ce445d95d243bb996273d072546a2"),
    "fsspec": ("2025.10.0", "7c7712353ae7d875407f97715f0e1ffcc21e33d5b24556cb1e090ae9409ec61d"),
    "huggingface-hub": ("0.36.0", "7bcc9ad17d5b3f07b57c78e79d527102d08313caa278a641993acddcb894548d"),
    "idna": ("3.11", "771a87f49d9defaf64091e6e6fe9c18d4833f140bd19464795bc32d966ca37ea"),
    "mpmath": ("1.3.0", "a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c"),
    "numpy": ("2.2.6", "1bc23a79bfabc5d056d106f9befb8d50c31ced2fbc70eedb8155aec74a45798f"),
    "packaging": ("25.0", "29572ef2b1f17581046b3a2227d5c611fb25ec70ca1ba8554b24b0e69331a484"),
    "protobuf": ("6.33.1", "8fd7d5e0eb08cd5b87fd3df49bc193f5cfd778701f47e11d127d0afc6c39f1d1"),
    "pyyaml": ("6.0.3", "0f29edc409a6392443abf94b9cf89ce99889a1dd5376d94316ae5145dfedd5d6"),
    "regex": ("2025.11.3", "4aecb6f461316adf9f1f0f6a4a1a3d79e045f9b71ec76055a791affa3b285850"),
    "requests": ("2.32.5", "2462f94637a34fd532264295e186976db0f5d453d1cdd31473c85a6a161affb6"),
    "safetensors": ("0.7.0", "dac7252938f0696ddea46f5e855dd3138444e82236e3be475f54929f0c510d48"),
    "sentencepiece": ("0.2.1", "c7f0fd2f2693309e6628aeeb2e2faf6edd221134dfccac3308ca0de01f8dab47"),
    "sympy": ("1.13.3", "54612cf55a62755ee71824ce692986f23c88ffa77207b30c1368eda4a7060f73"),
    "tokenizers": ("0.22.2", "369cc9fc8cc10cb24143873a0d95438bb8ee257bb80c71989e3ee290e8d72c67"),
    "tqdm": ("4.67.1", "26445eca388f82e72884e0d580d5464cd801a3ea01e63e5601bdff9ba6a48de2"),
    "transformers": ("4.57.6", "4c9e9de11333ddfe5114bc872c9f370509198acf0b87a832a0ab9458e2bd0550"),
    "typing-extensions": ("4.15.0", "f0fa19c6845758ab08074a0cfa8b7aecb71c999ca73d62883bc25cc018c4e548"),
    "urllib3": ("2.5.0", "e6b01673c0fa6a13e374b50871808eb3bf7046c4b125b216f6bf1cc604cff0dc"),
}
"""Version and sha256 of the wheel for the interpreter of `build.interpreter`."""
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "2024-02-27": ("LICENSE", "convert.py", "convert-hf-to-gguf.py", "gguf-py/gguf"),
    "2026-10-01": ("LICENSE", "convert_hf_to_gguf.py", "conversion", "gguf-py/gguf"),
}
SOURCES: Mapping[str, Source] = {
    f"{name}.whl": PypiSource(pypi=name, version=version, digest=digest)
    for name, (version, digest) in _PACKAGES.items()
}


def command(kind: str) -> tuple[str, ...]:
    """The converter's command line for weights of one type, f16 or f32."""
    return (*INTERPRETER, "/bundle/convert.py", kind)


def converts(release: str) -> bool:
    """Whether a release comes with a converter; a source of one's own has none that is known here."""
    return release in _SCRIPTS


def recipe(release: Release, variant: Variant, labels: Mapping[str, str]) -> RecipeSource:
    """The recipe of the converter's bundle."""
    return RecipeSource(
        name=f"llama.cpp/{release.name}/convert",
        folders={"": resources.images() / "llama.cpp/converter"},
        variables={
            "release": release.name,
            "commit": release.commit,
            "python": PYTHON,
            "scripts": list(_SCRIPTS[release.name]),
        },
        inputs={**release.sources, **SOURCES},
        triple=variant.triple,
        labels=labels,
        interpreter=Interpreter.torch,
    )
