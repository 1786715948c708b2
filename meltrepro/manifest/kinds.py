"""Parts of a manifest that a plug-in describes: validated by the model of the kind that they name, which is loaded then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

from meltrepro.registry import Registry


@dataclass(frozen=True)
class OfKind:
    """Marks a field whose value is of the model `options` of the kind that its key `kind` names."""

    registry: Registry
    what: str
    """What it is, for people; errors are of the type `<what>_kind`."""
    usual: str
    """The kind where a mapping names none."""

    def models(self) -> Iterator[tuple[str, type[BaseModel]]]:
        """The model of each kind that there is."""
        for kind in self.registry.kinds():
            yield kind, self.registry.get(kind).options

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
            checked = _tagged([(kind, self.registry.get(kind).options)])
            if info.mode == "json":
                return checked.validate_json(json.dumps(value), strict=True)
            return checked.validate_python(value)

        return core_schema.with_info_plain_validator_function(validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_union(list(self.models())))


def _union(models: list[tuple[str, type[BaseModel]]]) -> CoreSchema:
    """A union whose tag stands in the place of an error, as for unions whose parts are known."""
    usual = models[0][0]
    return core_schema.tagged_union_schema(
        {kind: model.__pydantic_core_schema__ for kind, model in models},
        lambda value: value.get("kind", usual) if isinstance(value, dict) else None,
    )


def _tagged(models: list[tuple[str, type[BaseModel]]]) -> SchemaValidator:
    return SchemaValidator(_union(models))
