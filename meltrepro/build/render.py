"""Recipes: folders of files and Jinja templates become the exact files that an engine executes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import DictLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meltrepro import resources
from meltrepro.build.model import Recipe, RecipeSource
from meltrepro.errors import BuildError

_TEMPLATE = ".j2"


def render(template: str, variables: Mapping[str, object]) -> str:
    """Render one template of `images/`; a variable that is not given is an error, never an empty string."""
    return render_text(resources.image_file(template).decode(), variables, name=template)


def render_text(
    text: str,
    variables: Mapping[str, object],
    *,
    name: str,
    escape: bool = False,
    included: Mapping[str, str] | None = None,
) -> str:
    """Render a template's text in the sandbox, as HTML with `escape`; raises `BuildError` where it cannot be."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=escape,
        loader=DictLoader(included or {}),
    )
    try:
        return environment.from_string(text).render(variables)
    except TemplateError as error:
        raise BuildError(f"recipe {name} cannot be rendered: {error}") from error


def render_recipe(source: RecipeSource, inputs: Mapping[str, Path], digests: Mapping[str, str]) -> Recipe:
    """Render every template of the recipe's folders but those that others include, and take other files as they are.

    Who executes it without an engine gets `parameters.json` in place of a Dockerfile and variables in a script.
    """
    try:
        found = {
            f"{place}/{name}".strip("/"): content
            for place, folder in source.folders.items()
            for name, content in resources.files(folder).items()
        }
        templates = {path: found.pop(path).decode() for path in sorted(found) if path.endswith(_TEMPLATE)}
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"recipe {source.name} cannot be read: {error}") from error
    for path, text in templates.items():
        if not path.rpartition("/")[2].startswith("_"):
            rendered = render_text(text, source.variables, name=f"{source.name}: {path}", included=templates)
            found[path.removesuffix(_TEMPLATE)] = rendered.encode()
    dockerfile = ""
    if source.maker == "engine":
        if "build.sh" not in found:
            raise BuildError(f"recipe {source.name} has no build.sh.j2", hint="docs/runner.md says what a recipe is")
        dockerfile = resources.image_file("Dockerfile.j2").decode()
    else:
        found["parameters.json"] = json.dumps(dict(source.variables), indent=1, sort_keys=True).encode() + b"\n"
    return Recipe(
        name=source.name,
        files=found,
        dockerfile=dockerfile,
        inputs=inputs,
        input_digests=digests,
        triple=source.triple,
        phases=source.phases,
        labels=source.labels,
        maker=source.maker,
        place=source.place,
        signed=source.signed,
    )
