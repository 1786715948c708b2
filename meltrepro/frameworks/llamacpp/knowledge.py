"""What each release of llama.cpp knows: architectures, types of numbers, tokenizers, checkpoints. So that nothing need be fetched to tell.

`releases.json` is made from the releases' own sources, which are pinned, and a test holds it against them:

    python -m meltrepro.frameworks.llamacpp.knowledge > meltrepro/frameworks/llamacpp/releases.json
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from meltrepro.frameworks.llamacpp.releases import known_as

_TABLE = Path(__file__).with_name("releases.json")
_FILES = {
    "architectures": ("llama.cpp", "src/llama-arch.cpp"),
    "loader": ("llama.cpp", "src/llama-model.cpp"),
    "vocabulary": ("llama.cpp", "src/llama-vocab.cpp"),
    "types": ("ggml.h", "ggml/include/ggml.h"),
}
"""Where in the tree of llama.cpp each thing stands, in the oldest release and today."""
_LOADERS = (
    re.compile(r"static bool llm_load_tensors\(.*?unknown architecture", re.DOTALL),
    re.compile(r"llama_model_mapping\(.*?unsupported model architecture", re.DOTALL),
)
"""What has a case for each architecture that can be loaded; some have a name alone."""
_NO_MODELS = frozenset({"clip"})
"""Named for the quantizer's sake."""
_UNPACKED = re.compile(r'quant_method == "([\w-]+)"')
_CONVERTERS = re.compile(r"conversion/\w+\.py|convert-hf-to-gguf\.py|gguf-py/gguf/constants\.py")
_OLD_SCRIPT = {"LlamaForCausalLM": "LLAMA", "MistralForCausalLM": "LLAMA"}
"""What the oldest release converts by a script of its own, which registers nothing."""
_NO_TOKENIZERS = frozenset({"no_vocab", "none", "test"})
_SHOWN = 30


@dataclass(frozen=True)
class Knowledge:
    """What one release can load."""

    architectures: tuple[str, ...]
    types: tuple[int, ...]
    """Of tensors, by number."""
    tokenizers: tuple[str, ...]
    pre_tokenizers: tuple[str, ...] | None
    """How text is split before pairs of bytes are joined; `None` of a release that does not look at it."""
    checkpoints: Mapping[str, str]
    """What its converter is registered for and it can load: by the names of checkpoints' architectures those of the files."""
    unpacks: tuple[str, ...]
    """Methods by which the weights of a checkpoint may be quantized, which the converter undoes or takes over."""


def of_release(name: str) -> Knowledge | None:
    """What a release knows; `None` of a source of one's own. Versions are taken to know what the pinned release does that stands for them:
    what they do not load after all, a trial tells."""
    return _table().get(known_as(name))


def known(names: Collection[str], wanted: str = "") -> str:
    """What there is, for messages: all of it, or the nearest to what is wanted."""
    if len(names) <= _SHOWN:
        return f"it knows: {', '.join(sorted(names))}"
    near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.4)
    return f"of the {len(names)} that it knows the nearest are: {', '.join(near)}" if near else f"it knows {len(names)}"


@cache
def _table() -> Mapping[str, Knowledge]:
    return {
        name: Knowledge(
            tuple(entry["architectures"]),
            tuple(entry["types"]),
            tuple(entry["tokenizers"]),
            tuple(entry["pre_tokenizers"]) if entry["pre_tokenizers"] is not None else None,
            entry["checkpoints"],
            tuple(entry["unpacks"]),
        )
        for name, entry in json.loads(_TABLE.read_text(encoding="utf-8")).items()
    }


# -- made from the source --------------------------------------------------------------------------------------------


def of_source(archive: Path) -> Knowledge:
    """What a release knows by its source, a tar; raises `LookupError` where that is laid out in another way."""
    texts, converters = _texts(archive), _converters(archive)
    names = dict(re.findall(r'\{\s*(LLM_ARCH_\w+),\s*"([^"(]+)"', texts["architectures"]))
    loader = next(found[0] for pattern in _LOADERS if (found := pattern.search(texts["loader"])))
    loaded = {names[case] for case in re.findall(r"case (LLM_ARCH_\w+):", loader) if case in names} - _NO_MODELS
    tokenizers = set(re.findall(r'tokenizer_(?:name|model) == "([^"]+)"', texts["vocabulary"])) - _NO_TOKENIZERS
    pre = set(re.findall(r'tokenizer_pre == "([^"]+)"', texts["vocabulary"]))
    return Knowledge(
        architectures=tuple(sorted(loaded)),
        types=_types(texts["types"]),
        tokenizers=tuple(sorted(tokenizers)),
        pre_tokenizers=tuple(sorted(pre)) if pre else None,
        checkpoints={name: kind for name, kind in _registered(converters).items() if kind in loaded},
        unpacks=tuple(sorted({method for text in converters.values() for method in _UNPACKED.findall(text)})),
    )


def _converters(archive: Path) -> dict[str, str]:
    """The texts of a release's converters, by their places in its tree."""
    with tarfile.open(archive) as tar:
        inside = ((member, member.name.partition("/vendor/llama.cpp/")[2]) for member in tar)
        files = ((place, tar.extractfile(member)) for member, place in inside if _CONVERTERS.fullmatch(place))
        return {place: file.read().decode() for place, file in files if file is not None}


def _registered(converters: Mapping[str, str]) -> dict[str, str]:
    """What they are registered for: classes, each with its own architecture or its base's; or a chain of comparisons."""
    names: dict[str, str] = {}
    classes: dict[str, ast.ClassDef] = {}
    found: dict[str, str] = {}
    for place, text in converters.items():
        if place.endswith("constants.py"):
            names = dict(re.findall(r'MODEL_ARCH\.(\w+)\s*:\s*"([^"]+)"', text))
        elif place.startswith("conversion/"):
            classes |= {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
        else:
            chain = re.findall(r"if arch (?:==|in) ([^:]+):\s+return gguf\.MODEL_ARCH\.(\w+)", text)
            found = {each: kind for listed, kind in chain for each in re.findall(r'"(\w+)"', listed)} | _OLD_SCRIPT
    for node in classes.values():
        found |= dict.fromkeys(_registrations(node), _own_architecture(node, classes))
    made = {name: names[kind] for name, kind in found.items() if kind in names}
    return dict(sorted(made.items()))


def _own_architecture(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> str:
    for part in node.body:
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.Attribute):
            target = part.targets[0]
            if isinstance(target, ast.Name) and target.id == "model_arch":
                return part.value.attr
    bases = (base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes)
    return next((found for base in bases if (found := _own_architecture(classes[base], classes))), "")


def _registrations(node: ast.ClassDef) -> Iterator[str]:
    for each in node.decorator_list:
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "register":
            yield from (one.value for one in each.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _types(text: str) -> tuple[int, ...]:
    """The numbers of the enumeration of types; one without a number is one more than that before it."""
    found = re.search(r"enum ggml_type \{(.*?)\}", text, re.DOTALL)
    if found is None:
        raise LookupError("enum ggml_type")
    numbers, last = [], -1
    for name, number in re.findall(r"GGML_TYPE_(\w+)\s*(?:=\s*(\d+))?\s*,", re.sub(r"//[^\n]*", "", found[1])):
        last = int(number) if number else last + 1
        if name != "COUNT":
            numbers.append(last)
    return tuple(numbers)


def _texts(archive: Path) -> dict[str, str]:
    """The files that say it, by what they say."""
    wanted = {f"vendor/llama.cpp/{file}" for files in _FILES.values() for file in files}
    found: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = member.name.partition("/")[2]
            if inside in wanted and (file := tar.extractfile(member)) is not None:
                found[inside.removeprefix("vendor/llama.cpp/")] = file.read().decode()
    return {what: next(found[file] for file in files if file in found) for what, files in _FILES.items()}


def main() -> None:
    """Print the table of all releases, whose sources are fetched where they are not here."""
    from meltrepro import settings
    from meltrepro.frameworks.llamacpp.module import RELEASES
    from meltrepro.steps import silent
    from meltrepro.store.cas import Store
    from meltrepro.store.fetch import Fetcher

    here = settings.load()
    fetcher = Fetcher(Store(here.cache / "store"), here, silent)
    sources = {name: fetcher.get(next(iter(release.sources.values()))) for name, release in RELEASES.items()}
    table = {name: asdict(of_source(archive)) for name, archive in sources.items()}
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
