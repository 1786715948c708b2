"""Every framework that is installed keeps the contract."""

from meltrepro.frameworks.base import framework
from meltrepro.registry import FRAMEWORKS
from meltrepro.testing.frameworks import FrameworkContract

for kind in FRAMEWORKS.kinds():
    name = "Test" + "".join(part.title() for part in kind.split("."))
    globals()[name] = type(name, (FrameworkContract,), {"framework": framework(kind)})
