"""Mooncake's Python class over a cluster, timed: a line in, a line of JSON out.

    bench_mooncake.py MASTER BYTES

Gives BYTES of memory to the cluster. Each line has it put the 84 MB batch, read it whole and 128 of its rows of one
field, and clean up; seconds of each.
"""

from __future__ import annotations

import json, sys, time

import numpy as np
from mooncake.store import MooncakeDistributedStore
from mooncake.structured_object_store import MooncakeBundleTransfer

store = MooncakeDistributedStore()
code = store.setup("127.0.0.1", "P2PHANDSHAKE", int(sys.argv[2]), 256 << 20, "tcp", "", sys.argv[1])
if code != 0:
    sys.exit(f"setup failed with {code}")
transfer = MooncakeBundleTransfer(store)
cells = np.arange(1024 * 4096, dtype=np.int64).reshape(1024, 4096)
data = {
    "batch": {
        "input_ids": cells,
        "labels": cells.copy(),
        "logprobs": np.full((1024, 4096), 0.5, dtype=np.float32),
        "rewards": np.ones(1024, dtype=np.float32),
    }
}
scattered = [(i * 37) % 1024 for i in range(128)]


def timed(action):
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    put, handle = timed(lambda: transfer.put(data, type="dataproto", partition="python"))
    get, result = timed(lambda: transfer.get(handle, type="dataproto"))
    assert result["batch"]["input_ids"][5, 7] == cells[5, 7]
    del result
    rows, result = timed(lambda: transfer.get(handle, type="dataproto", fields=["input_ids"], rows=slice(256, 384, 1)))
    assert result["batch"]["input_ids"][3, 9] == cells[259, 9]
    del result
    gather, result = timed(lambda: transfer.get(handle, type="dataproto", fields=["input_ids"], rows=scattered))
    assert result["batch"]["input_ids"][3, 9] == cells[scattered[3], 9]
    del result
    cleanup, _ = timed(lambda: transfer.cleanup_dataproto(handle))
    print(json.dumps({"put": put, "get": get, "rows": rows, "gather": gather, "cleanup": cleanup}), flush=True)
