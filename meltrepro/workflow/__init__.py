"""The Python API: what `meltrepro` does, as functions that the command line calls and notebooks import."""
