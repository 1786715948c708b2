"""The definitions of all metrics, by what they are about."""
