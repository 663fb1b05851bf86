"""A client of Mooncake's Python class that gives memory to a cluster until it is killed.

    mooncake_provider.py MASTER BYTES

Transport and address are those of the standard environment names, TCP over loopback where they are not set. Prints the
name of its segment once it is there.
"""

import os
import signal
import sys

from mooncake.store import MooncakeDistributedStore

master, size = sys.argv[1], int(sys.argv[2])
store = MooncakeDistributedStore()
hostname = os.environ.get("MOONCAKE_LOCAL_HOSTNAME", "127.0.0.1")
protocol = os.environ.get("MOONCAKE_PROTOCOL", "tcp")
device = os.environ.get("MOONCAKE_DEVICE_NAME", "")
code = store.setup(hostname, "P2PHANDSHAKE", size, 16 << 20, protocol, device, master)
if code != 0:
    sys.exit(f"setup failed with {code}")
print(store.get_hostname(), flush=True)
while True:
    signal.pause()
