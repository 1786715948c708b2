"""Ids: one spelling each, read back as the same value."""

from __future__ import annotations

import pytest

from meltrepro.record.ids import BundleId, CellId, LogitsId, ModelId, artifact_id, model_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ModelId("tiny", "q4_0", "llama.cpp"), "tiny/q4_0/llama.cpp"),
        (ModelId("tiny", "q4_0", "f", "armv8_2"), "tiny/q4_0/f/armv8_2"),
        (ModelId("tiny", "q4", "mlc", "aarch64"), "tiny/q4/mlc/aarch64"),
        (BundleId("llama.cpp", "run", "x86_64_v3"), "llama.cpp/run/x86_64_v3"),
        (LogitsId("tiny", "as-is", "f", "text"), "tiny/as-is/f/logits/text"),
    ],
)
def test_an_artifact_is_found_by_its_spelling(value: ModelId, text: str) -> None:
    assert str(value) == text
    assert artifact_id(text) == value
    assert type(value).parse(text) == value


def test_a_cell_names_its_model() -> None:
    cell = CellId.parse("tiny/q4_0/f/here/chat")
    assert str(cell) == "tiny/q4_0/f/here/chat"
    assert cell.model_id == ModelId("tiny", "q4_0", "f")


def test_programs_are_made_of_no_model() -> None:
    assert model_of(BundleId("f", "quantize", "x86_64_v3")) is None
    assert model_of(ModelId("tiny", "q4_0", "f")) == "tiny"


@pytest.mark.parametrize("text", ["", "a/b", "a/b/c/", "a//c", "../b/c", "a/b/c/d/e", "/a/b", "a/b/", "a/b/c\n"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        artifact_id(text)


def test_a_bundle_has_a_purpose() -> None:
    with pytest.raises(ValueError, match="no bundle is for 'q4_0': expected one of run, quantize"):
        BundleId.parse("f/q4_0/x86_64_v3")
