"""`python -m meltrepro`."""

from meltrepro.cli.app import run

if __name__ == "__main__":
    run()
