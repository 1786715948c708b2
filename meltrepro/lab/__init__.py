"""Virtual devices with real protocol stacks and known truth."""
