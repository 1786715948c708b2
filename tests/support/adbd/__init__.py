"""The device side of the adb protocol, with faults that can be asked for: a phone that breaks where a test wants it to.

Behind it is no phone but this machine, in namespaces of its own (machine.py); nothing is emulated, so that hundreds of
trials run in a minute. For what a real adbd and a real Android shell do, see `meltrepro.lab.phone`.
"""
