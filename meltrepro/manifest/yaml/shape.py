"""What may stand at a path of a manifest, read off the Pydantic models: keys, choices, branches of unions.

And the other way round: the places where a key may stand, for one in the wrong part of a file.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from meltrepro.manifest.kinds import Models
from meltrepro.manifest.yaml.tree import FieldPath

_MOST_PLACES = 2
"""Places that a hint names; a key that may stand in more of them says nothing of what was meant."""
_DEEPEST = 5


@dataclass(frozen=True)
class Branch:
    """One type that a value may have; `tag` is what selects it in a tagged union."""

    type: Any
    tag: str | None = None


@dataclass(frozen=True)
class Shape:
    branches: tuple[Branch, ...]

    @classmethod
    def of(cls, annotation: Any) -> Shape:
        return cls(tuple(_branches(annotation, None, None)))

    @property
    def tags(self) -> frozenset[str]:
        """Tags of the branches; Pydantic puts the chosen one into the location of an error."""
        return frozenset(branch.tag for branch in self.branches if branch.tag is not None)

    @property
    def is_untagged_union(self) -> bool:
        """Whether Pydantic puts a label of the branch that it tried into the location of an error."""
        return len(self.branches) > 1 and not self.tags

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The branches that are mappings with fixed keys."""
        return tuple(b.type for b in self.branches if isinstance(b.type, type) and issubclass(b.type, BaseModel))

    @property
    def keys(self) -> tuple[str, ...] | None:
        """Keys that a mapping here may have; `None` where any name is allowed, or where no mapping is."""
        if not self.models:
            return None
        return tuple(dict.fromkeys(key for model in self.models for key in model.model_fields))

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that are allowed, where they are few."""
        found: list[Any] = []
        for branch in self.branches:
            if get_origin(branch.type) is Literal:
                found += get_args(branch.type)
            elif isinstance(branch.type, type) and issubclass(branch.type, Enum):
                found += [member.value for member in branch.type]
        return tuple(map(str, found))

    def tagged(self, tag: str) -> Shape:
        """The branch that a tag selects, by then without it: a key of the branch may have the same name."""
        return Shape(tuple(Branch(branch.type) for branch in self.branches if branch.tag == tag))

    def child(self, step: str | int) -> Shape:
        """What may stand one step further down; no branches where nothing may."""
        found: list[Branch] = []
        for branch in self.branches:
            origin, arguments = get_origin(branch.type), get_args(branch.type)
            if isinstance(branch.type, type) and issubclass(branch.type, BaseModel):
                field = branch.type.model_fields.get(str(step))
                if field is not None:
                    found += _of_kinds(field.metadata) or _branches(field.annotation, None, field.discriminator)
            elif origin is list and isinstance(step, int):
                found += _branches(arguments[0], None, None)
            elif origin is dict and isinstance(step, str):
                found += _branches(arguments[1], None, None)
        return Shape(tuple(found))

    def implied(self, key: str) -> Any:
        """What a key holds that nobody wrote, as plain data; `None` unless that is a mapping of names."""
        for model in self.models:
            field = model.model_fields.get(key)
            value = field.get_default(call_default_factory=True, validated_data={}) if field else None
            if isinstance(value, dict):
                return {
                    name: item.model_dump(mode="json", exclude_unset=True) if isinstance(item, BaseModel) else item
                    for name, item in value.items()
                }
        return None


def _branches(annotation: Any, tag: str | None, discriminator: Any) -> Iterator[Branch]:
    """An annotation without `Annotated` and `| None`, its unions flattened."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and (plugged := _of_kinds(arguments[1:])):
        yield from plugged
    elif origin is Annotated:
        for extra in arguments[1:]:
            if isinstance(extra, Tag):
                tag = extra.tag
            elif isinstance(extra, FieldInfo):
                discriminator = extra.discriminator or discriminator
        yield from _branches(arguments[0], tag, discriminator)
    elif origin is Union or origin is types.UnionType:
        for argument in arguments:
            if argument is not types.NoneType:
                yield from _branches(argument, tag, discriminator)
    else:
        if isinstance(discriminator, str) and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            (tag,) = map(str, get_args(annotation.model_fields[discriminator].annotation))
        yield Branch(annotation, tag)


def place_of(key: str, model: type[BaseModel], at: FieldPath = ()) -> str | None:
    """`'gpu_layers' belongs to frameworks.NAME`, for a key that a file of this model has somewhere; `None` for others.

    `at` is where it was found: what may stand there may do so beside other keys alone, such as those of another task.
    """
    places = _places(model).get(key, ())
    if not 0 < len(places) <= _MOST_PLACES:
        return None
    found = next((place for place in places if _is_of(place, at)), None)
    return f"{key!r} belongs to " + (f"{found} of another kind" if found else " or ".join(places))


def _is_of(place: str, at: FieldPath) -> bool:
    """Whether a path is one of a place, in which `NAME` stands for any name."""
    parts = place.split(".")
    return len(parts) == len(at) and all(part in ("NAME", str(own)) for part, own in zip(parts, at, strict=True))


@cache
def _places(model: type[BaseModel]) -> Mapping[str, Collection[str]]:
    """Where each key of a file of this model may stand."""
    found: dict[str, dict[str, None]] = {}
    for path, keys in _mappings(Shape.of(model), ()):
        for key in keys:
            found.setdefault(key, {})[path] = None
    return found


def _mappings(shape: Shape, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every mapping with fixed keys at or below a place, with its keys; `NAME` stands for a name of the user's."""
    if len(path) > _DEEPEST:
        return
    keys = shape.keys
    if keys is not None:
        yield ".".join(path) or "the top of the file", keys
        for key in keys:
            yield from _mappings(shape.child(key), (*path, key))
    if any(get_origin(branch.type) is dict for branch in shape.branches):
        yield from _mappings(shape.child("NAME"), (*path, "NAME"))


def _of_kinds(metadata: Iterable[Any]) -> list[Branch]:
    """The branches of a part that plug-ins describe, each with its kind as tag."""
    return [Branch(model, kind) for each in metadata if isinstance(each, Models) for kind, model in each.models()]
