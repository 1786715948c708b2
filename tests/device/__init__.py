"""Checks that need hardware or hours; run by hand, never by `make test`."""
