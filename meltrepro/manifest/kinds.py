"""Parts of a manifest that a plug-in describes: validated by the model of the kind that they name, which is loaded then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

from meltrepro.errors import UsageError
from meltrepro.registry import Registry


class Unchecked(BaseModel):
    """What was written for a kind that is not installed here: records of it can be read all the same."""

    model_config = ConfigDict(extra="allow", frozen=True)


def _schema_of(model: type[BaseModel]) -> CoreSchema:
    model.model_rebuild()  # of ours, which are built when they are first asked for
    return model.__pydantic_core_schema__


@dataclass(frozen=True)
class Models:
    """Marks a part of a manifest that the kinds of a registry describe by their models `options`."""

    registry: Registry

    def models(self) -> Iterator[tuple[str, type[BaseModel]]]:
        """The model of each kind that there is."""
        for kind in self.registry.kinds():
            with suppress(UsageError):  # a package that is broken: whoever uses it is told
                yield kind, self.registry.get(kind).options

    def check(self, kind: str, value: Any, info: ValidationInfo) -> Any:
        """The value as the model of a kind, which stands before the place of an error as a tag does."""
        schema = core_schema.tagged_union_schema({kind: _schema_of(self.registry.get(kind).options)}, lambda _: kind)
        if info.mode == "json":
            return SchemaValidator(schema).validate_json(json.dumps(value), strict=True)
        return SchemaValidator(schema).validate_python(value)


@dataclass(frozen=True)
class OfKind(Models):
    """A value whose key `kind` says of which kind it is."""

    what: str
    """What it is, for people; errors are of the type `<what>_kind`."""
    usual: str
    """The kind where a mapping names none."""

    def __get_pydantic_core_schema__(self, source: type[BaseModel], handler: Any) -> CoreSchema:
        def validate(value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, source):
                return value
            kind = value.get("kind", self.usual) if isinstance(value, dict) else None
            if not isinstance(kind, str) or not self.registry.has(kind):
                kinds = sorted(self.registry.kinds())
                raise PydanticCustomError(
                    f"{self.what}_kind", f"expected a {self.what}: kind {' or '.join(kinds)}", {"kinds": kinds}
                )
            return self.check(kind, value, info)

        return core_schema.with_info_plain_validator_function(validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        models = {kind: _schema_of(model) for kind, model in self.models()}
        return handler(
            core_schema.tagged_union_schema(
                models, lambda value: value.get("kind", self.usual) if isinstance(value, dict) else None
            )
        )


@dataclass(frozen=True)
class OptionsOf(Models):
    """A value of the kind that the key `kind` beside it names, which stands before it in the model."""

    def __get_pydantic_core_schema__(self, source: type[BaseModel], handler: Any) -> CoreSchema:
        def validate(value: Any, info: ValidationInfo) -> Any:
            kind = info.data.get("kind")
            if kind is None or not self.registry.has(kind):
                return Unchecked.model_validate(value)
            return value if isinstance(value, BaseModel) else self.check(kind, value, info)

        return core_schema.with_info_plain_validator_function(validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(_schema_of(model)) for _, model in self.models()]}
