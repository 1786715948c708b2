"""A virtual iPhone: real protocols, real programs, made-up hardware (docs/devices/virtual-iphone.md).

It is an iOS 16: services are started by lockdownd over usbmuxd, developer services too, and there is no tunnel.
"""
