"""Recipes: Jinja templates under `images/` become the exact files that an engine executes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meltrepro import resources
from meltrepro.build.model import Recipe, RecipeSource
from meltrepro.errors import BuildError


def render(template: str, variables: Mapping[str, object]) -> str:
    """Render one template of `images/`; a variable that is not given is an error, never an empty string."""
    return render_text(resources.image_file(template).decode(), variables, name=template)


def render_text(text: str, variables: Mapping[str, object], *, name: str, escape: bool = False) -> str:
    """Render a template's text in the sandbox, as HTML with `escape`; raises `BuildError` where it cannot be."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, autoescape=escape
    )
    try:
        return environment.from_string(text).render(variables)
    except TemplateError as error:
        raise BuildError(f"recipe {name} cannot be rendered: {error}") from error


def render_recipe(source: RecipeSource, inputs: Mapping[str, Path], digests: Mapping[str, str]) -> Recipe:
    """Render every `*.j2` of the recipe's folder and take its other files as they are."""
    if source.maker != "engine":
        return _plain_recipe(source, inputs, digests)
    files: dict[str, bytes] = {}
    for relative in resources.image_files(source.folder):
        path = f"{source.folder}/{relative}"
        if relative == "Dockerfile.j2":
            continue
        if relative.endswith(".j2"):
            files[relative.removesuffix(".j2")] = render(path, source.variables).encode()
        else:
            files[relative] = resources.image_file(path)
    for place, folder in source.shared.items():
        for relative in resources.image_files(folder):
            files[f"{place}/{relative}"] = resources.image_file(f"{folder}/{relative}")
    return Recipe(
        name=source.name,
        files=files,
        dockerfile=resources.image_file(f"{source.folder}/Dockerfile.j2").decode(),
        inputs=inputs,
        input_digests=digests,
        triple=source.triple,
        phases=source.phases,
        labels=source.labels,
    )


def _plain_recipe(source: RecipeSource, inputs: Mapping[str, Path], digests: Mapping[str, str]) -> Recipe:
    """Files as they are, and what is wanted of them in `parameters.json`: nothing is rendered."""
    files = {
        f"{folder}/{name}": resources.image_file(f"{folder}/{name}")
        for folder in source.folders
        for name in resources.image_files(folder)
    }
    parameters = json.dumps(dict(source.variables), indent=1, sort_keys=True).encode() + b"\n"
    return Recipe(
        name=source.name,
        files={**files, "parameters.json": parameters},
        dockerfile="",
        inputs=inputs,
        input_digests=digests,
        triple=source.triple,
        labels=source.labels,
        maker=source.maker,
        place=source.place,
    )
