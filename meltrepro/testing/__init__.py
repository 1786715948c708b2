"""Contract suites for plug-ins: what every framework and every target promises, as test classes for pytest.

A package that brings a framework or a target kind inherits from them in its own tests (docs/plugins.md):

    class TestToy(FrameworkContract):
        framework = FRAMEWORK
"""

try:
    import pytest as _pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the contract suites need pytest: pip install 'meltrepro[testing]'", name=error.name
    ) from error
