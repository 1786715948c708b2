"""Everything that strangers write and the product reads: one function for each kind, from bytes to a value or an error of ours.

Whatever else it raises, however long it takes, is a fault. Hypothesis runs the table in the unit tests (tests/unit/test_fuzz.py),
atheris runs it for longer (`make fuzz`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from meltrepro.accuracy.datasets import read_questions
from meltrepro.errors import CorruptStore, EntryError, MeltreproError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.fit import look
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.scorer_output import read_scores
from meltrepro.frameworks.llamacpp.untie import untie
from meltrepro.manifest.loader import load_manifest, parse_manifest
from meltrepro.manifest.lock import load_lock
from meltrepro.manifest.meters import Meter
from meltrepro.manifest.prompts import read_prompt_lists
from meltrepro.measure.meterfile import check_meter, complete_bytes, read_meter
from meltrepro.publish.collect import collect
from meltrepro.publish.entry import entry_bytes
from meltrepro.publish.signature import sign
from meltrepro.publish.site import gallery_files
from meltrepro.record import seal
from meltrepro.record.trial import ScoringRequest
from meltrepro.replay import archive
from meltrepro.store.cas import Store
from meltrepro.store.globs import Glob
from meltrepro.store.mirror import load_mirrors
from meltrepro.untrusted import load_json
from tests.fuzz import answers, campaigns, surroundings
from tests.support import entries, ggufs
from tests.support.manifests import GOOD, write

DIGEST = "0" * 64


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    read: Callable[[bytes, Path], object]
    """Reads it as the product does; the folder is empty, or holds what earlier inputs left."""
    samples: Callable[[], Sequence[bytes]]
    """Valid ones, from which others are made."""
    form: str = "text"
    """How a sample is changed: `json` (also one a line), `text` or `bytes`."""


def attempt(kind: Kind, data: bytes, folder: Path) -> bool:
    """Whether an input was read; it must be, or end in an error that a person can read."""
    try:
        kind.read(data, folder)
    except MeltreproError as error:
        said = error.one_line
        assert said.strip() and len(said) < 100_000 and "Traceback" not in said
        said.encode("utf-8", "surrogateescape")  # as arguments and names of files that are no text come in
        return False
    return True


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _manifest(data: bytes, folder: Path) -> object:
    return load_manifest(_file(folder, "spec.yaml", data)), parse_manifest(data)


def _manifests() -> list[bytes]:
    return [GOOD.encode(), _json(parse_manifest(GOOD.encode()).model_dump(mode="json", exclude_unset=True))]


def _config(data: bytes, folder: Path) -> object:
    """What a manifest makes weights for; sizes are counted as a plan does."""
    _file(folder, "config.json", data)
    source = {"synthetic": {"config": "config.json"}}
    model = {"source": source, "chat_template": "plain", "quantizations": ["q4_0"]}
    rest = {"frameworks": {"llama.cpp": {"release": "2026-10-01"}}, "workloads": {"chat": {"conversations": [["Hi"]]}}}
    spec = {"meltrepro": 1, "name": "x", "models": {"m": model}, **rest}
    shape = load_manifest(_file(folder, "spec.yaml", _json(spec))).manifest.models["m"].shape
    assert shape is not None
    return shape.kv_bytes(512), shape.parameters, model_bytes(shape, "q4_0", "2026-10-01")


def _configs() -> list[bytes]:
    sizes = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4}
    more = {"vocab_size": 2048, "max_position_embeddings": 512, "rope_scaling": {"rope_type": "llama3"}}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    dense = {"architectures": ["LlamaForCausalLM"], **sizes, **more}
    return [_json(dense), _json({**dense, "architectures": ["Qwen3MoeForCausalLM"], **experts})]


def _locks() -> list[bytes]:
    source = {"digest": DIGEST, "size": 5, "filename": "a.whl", "archive": DIGEST}
    package = {"version": "1", "architecture": "x", "digest": DIGEST}
    lock = {
        "lock": 1,
        "manifest": DIGEST,
        "sources": {"pypi:a==1:wheel": source},
        "prompts": {"p.yaml": DIGEST},
        "base": {"suite": "s", "layer": DIGEST, "packages": {"a": package}},
        "toolchain": {"digest": DIGEST, "image": "i", "wheels": {"w": DIGEST}},
        "recipes": {"r": DIGEST},
        "artifacts": {"m/q/f": {"key": DIGEST, "digest": DIGEST}},
    }
    return [_json(lock)]


def _set(data: bytes, folder: Path) -> object:
    texts = data.decode(errors="surrogateescape").replace("\0", "").split("\n")[:8]
    return load_manifest(write(folder, GOOD), texts)


SETTINGS = (
    "models.m.quantizations=[q4_K]\nprotocol={repetitions: 2, order: blocked}",
    "frameworks.llama.cpp.release=2024-02-28",
    "workloads.chat.conversations[0][0]='x'\nworkloads.chat.max_tokens=4",
    'models["m"]={}\ntargets.host.kind=host',
    "include=[other.yaml]\nname=&a [*a]",
)


def _glob(data: bytes, _: Path) -> object:
    pattern, path = ([*data.decode(errors="replace").split("\n", 1), ""])[:2]
    return Glob(pattern).matches(path)


def _bundle(data: bytes, folder: Path) -> object:
    index = archive.verify(_file(folder, "b.melt", data), lambda name, pieces: None)
    return index.withheld, [index.label(name) for name in index.members]


def _bundles() -> list[bytes]:
    """A whole file is for bytes to be changed in; what lies in its index is the next kind."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        path = Path(name) / "b"
        archive.write(path, {"name": "n", "campaigns": ["c"]}, {"a/b": b"xyz", "manifest.yaml": GOOD.encode()})
        return [path.read_bytes()]


def _index(data: bytes, _: Path) -> object:
    index = archive.parse_index(data)
    return index.withheld, [index.label(name) for name in index.members]


def _indices() -> list[bytes]:
    members = {"a/b": {"size": 1, "sha256": DIGEST}, "manifest.yaml": {"size": 0, "sha256": DIGEST}}
    about = {"name": "n", "campaigns": ["c"], "withheld": [DIGEST], "labels": {"a/b": "the source"}}
    return [_json({"format": 1, "about": about, "members": members})]


REFS: Mapping[str, Any] = {
    "artifacts": {"name": "a", "digest": DIGEST},
    "base": {"packages": [["a", "1", "amd64", DIGEST]]},
    "base-layer": {"digest": DIGEST},
    "executed": {"files": {"Dockerfile": "FROM scratch"}},
    "files": {"state": [1, 2, 3, 4], "digest": DIGEST, "size": 5},
    "interpreter": {"packages": [["a", "1", "amd64", DIGEST]]},
    "toolchain": {"digest": DIGEST},
}


def _ref(data: bytes, folder: Path) -> object:
    """The same content in the place of every kind of ref; a damaged one is set aside, so that the next look finds none."""
    store = Store(folder / "store")
    for kind, value in REFS.items():
        store.put_ref(kind, "key", value)
        next((folder / "store" / "refs" / kind).glob("*.json")).write_bytes(data)
        try:
            found = store.get_ref(kind, "key")
        except CorruptStore:
            assert store.get_ref(kind, "key") is None
        else:
            assert found is not None
            store.has(found.get("digest") or DIGEST)
    return None


METERS = (
    Meter(file="m.csv", time="t", columns={"P": "mW"}),
    Meter(file="m.csv", time="t", time_unit="ms", columns={"#3": "W", "E": "mWh"}, delimiter=";", decimal=","),
    Meter(file="m.csv", time="t", time_format="%d.%m.%Y %H:%M:%S.%f", time_zone="Europe/Berlin", columns={"P": "W"}),
    Meter(file="m.csv", time="t", time_format="iso", columns={"P": "W"}, encoding="utf-16", delimiter=" "),
)
METERED = (
    "t,P\n1.5,100\n1.75,200\n2.0,300\n",
    "\ufeffmeter 5\nt;E;P\n0;0,5;1,5\n250;0,75;2\n500;1;nan\nend\n",
    "t,P\n25.10.2026 01:30:00.0,2\n01.12.2026 09:00:00.5,1\n01.12.2026 09:00:01.0,2\n",
    "t P\n2026-12-01T09:00:00.5Z 1\n2026-12-01T10:00:01+01:00 2\n",
)


def _meter(data: bytes, folder: Path) -> object:
    """The first byte chooses the options with which the rest is read."""
    meter = METERS[data[0] % len(METERS)] if data else METERS[0]
    path = _file(folder, "m.csv", data[1:])
    begin = complete_bytes(path, meter)
    check_meter(path, meter)
    return read_meter(path, meter), begin


def _metered() -> list[bytes]:
    texts = [text.encode("utf-16" if n == 3 else "utf-8") for n, text in enumerate(METERED)]
    return [bytes([n]) + text for n, text in enumerate(texts)]


def _gguf(data: bytes, folder: Path) -> object:
    path, out = _file(folder, "m.gguf", data), folder / "untied.gguf"
    out.unlink(missing_ok=True)
    gguf.describe(path)
    for read in (gguf.check, gguf.scan, gguf.parameters, lambda path: look(path, "2026-10-01", None)):
        try:
            read(path)
        except MeltreproError as error:
            assert error.message
    return untie(path, out)


def _scores(data: bytes, _: Path) -> object:
    """What a scorer printed, in each way in which it works."""
    stdout, stderr = ([*data.decode(errors="replace").split("\n%%\n", 1), ""])[:2]
    for mode, questions in (("multiple-choice", 2), ("hellaswag", 2), ("winogrande", 2), ("perplexity", None)):
        _attempted(mode, questions, stdout, stderr)
    return _attempted("kl-divergence", None, stdout, stderr)


def _attempted(mode: str, questions: int | None, stdout: str, stderr: str) -> object:
    request = ScoringRequest(
        task="arc", mode=mode, model="m", context=512, threads=1, batch=512, data=DIGEST, inputs={}, questions=questions
    )
    try:
        return read_scores(request, stdout, stderr)
    except MeltreproError as error:
        return error.message.encode()


PRINTED = (
    "1\t100.00000000\n2\t50.00000000\n Final result: 50.0000 +/- 1.0\n",
    "1\t 0.0000\t\n2\t 50.0000\t \nFinal Winogrande score(2 tasks): 50.0000 +/- 35.3553\n%%\nerr",
    "[1]5.1234,[2]6.0001,\nFinal estimate: PPL = 6.0001 +/- 0.12345\n",
    (
        "   1       6.2000 ±    0.3000       0.00010 ±    0.00010       0.00100 ±    0.00010     1.000 ±  0.010 %    99.000 ±  0.500 %\n"
        "Mean    KLD:   0.001000 ±   0.000100\n"
    ),
)


def _questions(data: bytes, _: Path) -> object:
    """The first line is the task, which a manifest can only name where there is one."""
    first, rest = ([*data.split(b"\n", 1), b""])[:2]
    task = first.decode(errors="replace")
    return read_questions(task if task in TASKS else TASKS[0], rest, "data.json")


TASKS = ("arc-easy", "hellaswag", "winogrande", "truthfulqa")
QUESTIONS = (
    'arc-easy\n{"id": "a", "question": {"stem": "s", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}, "answerKey": "A"}\n',
    'hellaswag\n{"ind": 1, "activity_label": "a", "ctx_a": "a", "ctx_b": "b", "ctx": "a b", "label": 1, "endings": ["a", "b", "c", "d"]}\n',
    'winogrande\n{"qID": "q", "sentence": "the _ is big", "option1": "a", "option2": "b", "answer": "1"}\n',
    'truthfulqa\n[{"question": "q", "mc1_targets": {"a": 1, "b": 0}}]\n',
    "truthfulqa\nType,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\na,b,q,x,x; y,z,s\n",
)


def _entry(data: bytes, folder: Path) -> object:
    """An entry, and a signature beside it after a line of its own, as a gallery takes them from anybody."""
    content, _, signed = data.partition(SIGNED)
    _file(folder, "e.json", content)
    _file(folder, "e.json.sig", signed)
    found = collect(folder)
    gallery_files(found, "title")
    if found.refused:
        raise EntryError(str(found.refused[0]), hint="get it again")
    return found.taken


def _resealed(data: bytes, folder: Path) -> object:
    """An entry that whoever changed it sealed anew, so that what lies behind the seal is reached."""
    try:
        document = load_json(data)
        content = seal.sealed({name: value for name, value in document.items() if name != seal.SEAL})
    except (ValueError, AttributeError) as error:
        raise EntryError(f"damaged: {error}") from error
    _file(folder, "e.json", content)
    found = collect(folder)
    gallery_files(found, "title")
    return found.taken


SIGNED = b"\n%% signature\n"


@cache
def _entries() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        key = entries.make_key(Path(folder))
        found = [entry_bytes(each) for each in (entries.entry(), entries.replay_of("first", "somebody"))]
        return [content + SIGNED + sign(content, key) for content in found]


def _texts(samples: Sequence[str]) -> Callable[[], list[bytes]]:
    return lambda: [sample.encode() for sample in samples]


@cache
def kinds() -> Mapping[str, Kind]:
    """The table, by name."""
    return {
        "manifest": Kind(_manifest, _manifests),
        "config": Kind(_config, _configs, "json"),
        "set": Kind(_set, _texts(SETTINGS)),
        "lock": Kind(lambda data, folder: load_lock(_file(folder, "spec.lock.yaml", data)), _locks, "json"),
        "mirrors": Kind(
            lambda data, folder: load_mirrors(_file(folder, "mirrors.yaml", data)),
            lambda: [_json({"mirrors": {"url:https://h/a": "a", "pypi:a==1": "b/c"}})],
            "json",
        ),
        "prompts": Kind(
            lambda data, folder: read_prompt_lists(_file(folder, "prompts.yaml", data)),
            lambda: [_json([["a", "b"], ["c"]]), b"conversations:\n- [a, b]\n"],
            "json",
        ),
        "pattern": Kind(_glob, _texts(["**/*.py\na/b.py", "*a*a*a*a*a*b\n" + "a" * 60, "**/**/[!a-c]?\nx/y/de"])),
        "bundle": Kind(_bundle, _bundles, "bytes"),
        "bundle-index": Kind(_index, _indices, "json"),
        "ref": Kind(_ref, lambda: [_json(value) for value in REFS.values()], "json"),
        "meter": Kind(_meter, _metered),
        "gguf": Kind(_gguf, lambda: [ggufs.whole(), ggufs.model("m"), ggufs.gguf({}, ggufs.TIED)], "bytes"),
        "scores": Kind(_scores, _texts(PRINTED)),
        "questions": Kind(_questions, _texts(QUESTIONS)),
        "entry": Kind(_entry, _entries, "bytes"),
        "resealed": Kind(_resealed, lambda: [each.partition(SIGNED)[0] for each in _entries()], "json"),
        **{name: Kind(*each) for name, each in campaigns.KINDS.items()},
        **{name: Kind(*each) for name, each in answers.KINDS.items()},
        **{name: Kind(*each) for name, each in surroundings.KINDS.items()},
    }
