"""A client of Mooncake's Python class that gives memory to a cluster until it is killed.

    mooncake_provider.py MASTER BYTES

Prints the name of its segment once it is there.
"""

import signal
import sys

from mooncake.store import MooncakeDistributedStore

master, size = sys.argv[1], int(sys.argv[2])
store = MooncakeDistributedStore()
code = store.setup("127.0.0.1", "P2PHANDSHAKE", size, 16 << 20, "tcp", "", master)
if code != 0:
    sys.exit(f"setup failed with {code}")
print(store.get_hostname(), flush=True)
while True:
    signal.pause()
