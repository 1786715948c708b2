from meltrepro_toybox import KIND

from meltrepro.testing.targets import TargetKindContract


class TestToybox(TargetKindContract):
    kind = KIND
