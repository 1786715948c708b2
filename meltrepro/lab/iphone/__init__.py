"""A virtual iPhone: real protocols, real programs, made-up hardware; everything that it says of itself says *virtual*.

    from meltrepro.lab.iphone.device import VirtualIphone
    from meltrepro.lab.iphone.faults import Break, Faults, How

    phone = VirtualIphone(folder)               # what it stores, whom it trusts and what it drew is in the folder
    phone.install(["/path/to/runner"])          # the app org.meltrepro.runner; any program of this machine
    phone.start()
    os.environ["USBMUXD_SOCKET_ADDRESS"] = phone.address    # 127.0.0.1:PORT, which every client understands
    ...                                         # pair, push to Documents, launch, pull, as with a phone
    phone.documents() / "runs"                  # the same files, seen from here
    phone.faults = Faults(breaks=(Break("com.apple.afc", How.cut, message=3),))
    phone.unplug(); phone.plug(); phone.heal()
    phone.stop()                                # or erase(), which removes the folder too

It is an iOS 16: services are started by lockdownd over usbmuxd, developer services too, and there is no tunnel.
Its architecture is this machine's, because its apps are programs of this machine.
"""
