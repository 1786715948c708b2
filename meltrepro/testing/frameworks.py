"""What every framework promises (`meltrepro.frameworks.base`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from meltrepro.build.render import render_recipe
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import AS_IS, RUN, Framework, Release, Skip, Variant
from meltrepro.manifest.sources import FileSource
from meltrepro.plan.identity import canonical
from meltrepro.targets.base import DeviceFacts

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What may be a part of an id: ids are names of folders."""

DEVICES = (
    DeviceFacts(
        "a", "host", "server", "x86_64", frozenset({"ssse3", "sse4_1", "sse4_2", "popcnt"}), 2, 8 << 30, 8 << 30
    ),
    DeviceFacts("b", "linux", "board", "aarch64", frozenset({"asimd"}), 4, 8 << 30, 8 << 30),
)


class FrameworkContract:
    """Inherit from it, name the object, and run pytest."""

    framework: ClassVar[Framework]
    valid_options: ClassVar[Mapping[str, Any]] = {}
    """Options of a manifest that the framework takes."""
    devices: ClassVar[tuple[DeviceFacts, ...]] = DEVICES
    """Of which at least one must be served."""

    @pytest.fixture
    def options(self) -> BaseModel:
        return self.framework.options.model_validate(self.valid_options)

    @pytest.fixture
    def release(self) -> Release:
        return [*self.framework.releases().values()][-1]

    def served(self, options: BaseModel, release: Release) -> Iterator[tuple[DeviceFacts, Variant]]:
        """Every device that can be built for, with its variant."""
        for device in self.devices:
            variant = self.framework.variant(options, release, device)
            if isinstance(variant, Variant):
                yield device, variant

    def test_options_refuse_what_they_do_not_know(self) -> None:
        with pytest.raises(ValidationError):
            self.framework.options.model_validate({**self.valid_options, "no-such-option": 1})
        assert json.dumps(self.framework.options.model_json_schema()), "`meltrepro schema` shows them"

    def test_every_option_says_what_it_is(self) -> None:
        for name, field in self.framework.options.model_fields.items():
            assert field.description, f"option {name} has no description"

    def test_releases_are_pinned(self) -> None:
        releases = self.framework.releases()
        assert releases
        for name, release in releases.items():
            assert release.name == name
            assert _NAME.fullmatch(name)
            for source in release.sources.values():
                assert source.digest, f"release {name}: an input without a digest pins nothing"

    def test_quantizations_have_bits(self) -> None:
        quantizations = self.framework.quantizations()
        assert AS_IS in quantizations
        assert all(0 < bits <= 64 for bits in quantizations.values())

    def test_a_device_gets_a_variant_that_it_can_run(self, options: BaseModel, release: Release) -> None:
        served = [*self.served(options, release)]
        assert served, "none of the devices can run it"
        for device, variant in served:
            assert _NAME.fullmatch(variant.name)
            assert variant.machine == device.arch, f"{variant.name} is for {variant.machine}"
            assert not variant.missing(device.features)
            assert variant.level in self.framework.levels()
            assert variant == self.framework.variant(options, release, device), "chosen anew, it is another one"

    def test_an_unknown_machine_is_skipped_with_a_reason(self, options: BaseModel, release: Release) -> None:
        alien = DeviceFacts("x", "linux", "alien", "z80", frozenset(), 1, 1 << 16, 1 << 16)
        skip = self.framework.variant(options, release, alien)
        assert isinstance(skip, Skip)
        assert skip.reason

    def test_a_level_that_nobody_knows_is_skipped(self, options: BaseModel, release: Release) -> None:
        for device, _ in self.served(options, release):
            assert isinstance(self.framework.variant(options, release, device, "no-such-level"), Skip)

    def test_recipes_render_alike(self, options: BaseModel, release: Release) -> None:
        for _, variant in self.served(options, release):
            source = self.framework.recipe(options, release, variant, RUN)
            digests = {name: each.digest or "0" * 64 for name, each in source.inputs.items()}
            paths = {name: Path("/nowhere") / name for name in digests}
            recipe = render_recipe(source, paths, digests)
            assert recipe.files
            assert recipe == render_recipe(source, paths, digests)

    def test_the_request_and_the_pins_are_plain_data(self, options: BaseModel, release: Release) -> None:
        assert canonical(self.framework.pinned(options)) == canonical(self.framework.pinned(options))
        for _, variant in self.served(options, release):
            assert canonical(self.framework.request(options, variant)) is not None

    def test_models_are_made_by_steps(self, options: BaseModel, release: Release) -> None:
        source = FileSource(file="model", digest="0" * 64)
        for _, variant in self.served(options, release):
            for quantization in self.framework.quantizations():
                steps = self.framework.model_steps(source, quantization, release, variant)
                if isinstance(steps, Skip):
                    assert steps.reason
                    continue
                for step in steps:
                    assert (step.purpose is None) == (step.run is not None), "a step is a bundle's or this process's"
                    assert step.purpose is None or step.command, f"step {step.name} has no command"

    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\0" * 4096])
    def test_what_is_no_model_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            self.framework.check_model(path)

    def test_adapters_are_refused_with_a_reason_or_looked_at(self, tmp_path: Path, release: Release) -> None:
        refusal = self.framework.adapter_refusal(release)
        assert refusal is None or refusal.strip()
        path = tmp_path / "adapter"
        path.write_bytes(b"<html>not found</html>")
        with pytest.raises(ModelError):
            self.framework.check_adapter(path, None)
