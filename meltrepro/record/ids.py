"""What cells, models, bundles and logits are called in plans, locks, records and tracking; the one spelling of each."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from typing import Self

from meltrepro.manifest.axes import base

PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")
"""What a part may consist of: an id is a path below a campaign's folder. `+` and `=` are those of options (`manifest.axes`)."""
RUN = "run"
PURPOSES = (RUN, "quantize", "convert", "rewrite", "compile")
"""What a bundle is for; no quantization is called so, which keeps the ids of bundles and models apart."""
ADAPTED = "lora"
"""Stands in the place of a quantization for what is added to a model."""
_LOGITS = "logits"


@dataclass(frozen=True, order=True)
class _Id:
    """Names in an order; spelled with a slash between two."""

    def __post_init__(self) -> None:
        if vars(self).get("quantization") in PURPOSES:
            raise ValueError(f"{str(self)!r} is no id: {', '.join(PURPOSES)} are no quantizations")

    def __str__(self) -> str:
        return "/".join(filter(None, vars(self).values()))  # in the order of the fields, much faster than astuple

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that is spelled so; raises `ValueError`."""
        names = [each.name for each in fields(cls) if each.default is MISSING]
        parts = text.split("/")
        if not len(names) <= len(parts) <= len(fields(cls)) or not all(map(PART.fullmatch, parts)):
            raise ValueError(f"{text!r} is no id: expected {'/'.join(names)}")
        return cls(*parts)


@dataclass(frozen=True, order=True)
class ModelId(_Id):
    """A model as one framework loads it."""

    model: str
    quantization: str
    framework: str
    variant: str = ""
    """Of the framework, of a model that is made for that one alone."""


@dataclass(frozen=True, order=True)
class CellId(_Id):
    """One point of a matrix."""

    model: str
    quantization: str
    framework: str
    """With the options that other points have otherwise: `llama.cpp+kv_type=q8_0`."""
    target: str
    workload: str

    @property
    def model_id(self) -> ModelId:
        return ModelId(self.model, self.quantization, base(self.framework))


@dataclass(frozen=True, order=True)
class BundleId(_Id):
    """Programs of a framework, built for a class of devices."""

    framework: str
    purpose: str
    variant: str

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise ValueError(f"no bundle is for {self.purpose!r}: expected one of {', '.join(PURPOSES)}")


@dataclass(frozen=True, order=True)
class LogitsId(_Id):
    """What a model expects of a text, which others are compared with."""

    model: str
    quantization: str
    framework: str
    workload: str

    def __str__(self) -> str:
        return "/".join((self.model, self.quantization, self.framework, _LOGITS, self.workload))

    @classmethod
    def parse(cls, text: str) -> Self:
        found = CellId.parse(text)
        if found.target != _LOGITS:
            raise ValueError(f"{text!r} is no id of logits: expected {_LOGITS} before the workload")
        return cls(found.model, found.quantization, found.framework, found.workload)

    @property
    def model_id(self) -> ModelId:
        return ModelId(self.model, self.quantization, self.framework)


ArtifactId = BundleId | ModelId | LogitsId


def artifact_id(text: str) -> ArtifactId:
    """The id of what a build made, as a lock has it; raises `ValueError`."""
    for kind in (BundleId, LogitsId):
        try:
            return kind.parse(text)
        except ValueError:
            continue
    return ModelId.parse(text)


def model_of(artifact: ArtifactId) -> str | None:
    """Name of the model that an artifact was made of; `None` of programs."""
    return None if isinstance(artifact, BundleId) else artifact.model
