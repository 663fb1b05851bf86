"""One process of the shm attack in Python, with the roles and bundles of tests/faults/shm_attack_worker.ts.

    attack.py reader|deleter|writer DIRECTORY SECONDS
"""

import ctypes
import json
import os
import random
import sys
import threading
import time
import uuid

from batchferry_shm import ShmStore

role, directory, seconds = sys.argv[1:]
store = ShmStore(directory)
end = time.monotonic() + float(seconds)
counts = {"wrote": 0, "reads": 0, "deleted": 0, "dropped": 0, "wrong": 0}


def slowly(call):
    """Now and then a reader is held up between finding a file and reading it, which is when it may be filled anew."""

    def slow(*args):
        if random.random() < 0.2:
            time.sleep(random.random() / 20)
        return call(*args)

    return slow


os.pread, os.preadv = slowly(os.pread), slowly(os.preadv)


def is_right(data: bytes, hex_id: str) -> bool:
    """Every bundle holds the start of its own id over and over."""
    word = int(hex_id[:8], 16).to_bytes(4, "little")
    return data == word * (len(data) // 4)


def bundle_ids() -> list[str]:
    return sorted({name[:32] for name in store._names("live/bundle%2Fattack")})


def read(hex_id: str) -> None:
    key = f"bundle/attack/{hex_id}/buffer/batch.x"
    if random.random() < 0.5:
        data = store.get(key)
        counts["reads" if data else "dropped"] += 1
        counts["wrong"] += not is_right(data, hex_id)
        return
    size = store.get_size(key)
    if size < 0:
        counts["dropped"] += 1
        return
    start = random.randrange(size // 4) * 4
    buffer = ctypes.create_string_buffer(size - start)
    ranges = [[[0]]], [[[start]]], [[[size - start]]]
    result = store.get_into_ranges([ctypes.addressof(buffer)], [[key]], *ranges)
    if result == [[[-704]]]:
        counts["dropped"] += 1
    else:
        counts["reads"] += 1
        counts["wrong"] += result != [[[size - start]]] or not is_right(buffer.raw, hex_id)


def work() -> None:
    while time.monotonic() < end:
        if role == "writer":
            hex_id = uuid.uuid4().hex
            data = int(hex_id[:8], 16).to_bytes(4, "little") * random.choice([1, 300, 50_000])
            assert store.put(f"bundle/attack/{hex_id}/buffer/batch.x", data) == 0
            assert store.put(f"bundle/attack/{hex_id}/manifest", b"{}") == 0
            counts["wrote"] += 1
            time.sleep(0.01)
            continue
        ids = bundle_ids()
        for hex_id in random.choices(ids, k=5) if ids else []:
            if role == "reader":
                read(hex_id)
            else:
                keys = [f"bundle/attack/{hex_id}/{name}" for name in ("buffer/batch.x", "manifest")]
                counts["deleted"] += 0 in store.batch_remove(random.sample(keys, 2), True)


failures = []
threading.excepthook = lambda args: failures.append(args)
threads = [threading.Thread(target=work) for _ in range(8 if role == "reader" else 1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
store.close()
assert not failures, failures
print(json.dumps(counts))
