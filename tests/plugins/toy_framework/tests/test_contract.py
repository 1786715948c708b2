from meltrepro_toy import FRAMEWORK

from meltrepro.testing.frameworks import FrameworkContract


class TestToy(FrameworkContract):
    framework = FRAMEWORK
    valid_options = {"smoothing": 3}
