"""Identities of artifacts: the digest of everything that can change their bytes, and of nothing else.

The base image is left out on purpose: static binaries do not depend on it, and `meltrepro verify` proves it. So are
the Dockerfile (it only places files) and the number of jobs.
"""

from __future__ import annotations

import hashlib

from meltrepro.build import toolchain
from meltrepro.build.model import ModelRecipe, Recipe
from meltrepro.plan.identity import digest_of


def recipe_digest(recipe: Recipe) -> str:
    """Digest of the rendered files and of how they are run."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in recipe.files.items()}
    return digest_of({"files": files, "phases": list(recipe.phases), "triple": recipe.triple})


def bundle_key(recipe: Recipe) -> str:
    """Identity of a bundle: recipe, inputs, toolchain, environment. Of an app the recipe names its toolchain."""
    if recipe.maker != "engine":
        inputs = dict(recipe.input_digests)
        return digest_of({"kind": "app", "maker": recipe.maker, "recipe": recipe_digest(recipe), "inputs": inputs})
    return digest_of(
        {
            "kind": "bundle",
            "recipe": recipe_digest(recipe),
            "inputs": dict(recipe.input_digests),
            "toolchain": toolchain.identity(),
            "environment": toolchain.environment(recipe.triple),
        }
    )


def converted_key(source_digest: str, converter: str, recipe: ModelRecipe) -> str:
    """Identity of what a converter makes of a checkpoint: listing of files, converter bundle (digest), command."""
    return digest_of(
        {"kind": "converted", "source": source_digest, "converter": converter, "command": list(recipe.converter)}
    )


def logits_key(text_digest: str, model_digest: str, bundle_digest: str, command: tuple[str, ...]) -> str:
    """Identity of what a model expects of a text: text, model, scorer's bundle (digests), command."""
    return digest_of(
        {
            "kind": "logits",
            "text": text_digest,
            "model": model_digest,
            "bundle": bundle_digest,
            "command": list(command),
        }
    )


def model_key(source_digest: str, quantizer: str | None, recipe: ModelRecipe) -> str:
    """Identity of a model: source (or `converted_key`), conversion, quantizer bundle (digest), command."""
    return digest_of(
        {
            "kind": "model",
            "source": source_digest,
            "conversion": recipe.conversion,
            "quantizer": quantizer,
            "command": list(recipe.command),
        }
    )
