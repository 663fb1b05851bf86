"""Mooncake's Python class over the shm folder, timed: one JSON line in (what to do), one out (seconds).

Time inside the store's calls is counted apart from the rest, which is encoding and decoding.
"""

from __future__ import annotations

import json, sys, time

import numpy as np
from batchferry_shm import ShmStore
from mooncake.structured_object_store import MooncakeBundleTransfer


class Timed:
    """A store whose calls are timed."""

    def __init__(self, store: ShmStore) -> None:
        self.store, self.seconds = store, 0.0

    def __getattr__(self, name: str):
        call = getattr(self.store, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def objects(rows: list) -> np.ndarray:
    out = np.empty(len(rows), dtype=object)
    out[:] = rows
    return out


def strings() -> dict:
    return {"non_tensor_batch": {"c": objects([f"{i} ".ljust(200, "x") for i in range(100_000)])}}


def ragged() -> dict:
    return {"non_tensor_batch": {"c": objects([np.full(i % 513, i, dtype=np.int64) for i in range(100_000)])}}


def big() -> dict:
    cells = np.arange(1024 * 4096, dtype=np.int64).reshape(1024, 4096)
    return {
        "batch": {
            "input_ids": cells,
            "labels": cells.copy(),
            "logprobs": np.full((1024, 4096), 0.5, dtype=np.float32),
            "rewards": np.ones(1024, dtype=np.float32),
        }
    }


def main() -> None:
    store = Timed(ShmStore(sys.argv[1]))
    transfer = MooncakeBundleTransfer(store)
    data = {"strings": strings(), "ragged": ragged(), "big": big()}
    for line in sys.stdin:
        name = json.loads(line)["name"]
        store.seconds, start = 0.0, time.perf_counter()
        handle = transfer.put(data[name], type="dataproto", partition="python")
        total, write = time.perf_counter() - start, store.seconds
        store.seconds, start = 0.0, time.perf_counter()
        result = transfer.get(handle, type="dataproto")
        read_total, read = time.perf_counter() - start, store.seconds
        assert len(next(iter({**result["batch"], **result["non_tensor_batch"]}.values()))) in (1024, 100_000)
        del result
        transfer.cleanup_dataproto(handle)
        seconds = {"encode": total - write, "write": write, "read": read, "decode": read_total - read}
        print(json.dumps(seconds), flush=True)


main()
