"""Values as exact JSON, the same form that tests/interop/neutral.ts makes.

A dense array is {"dtype", "shape", "hex"} with little-endian elements. A row is null, true, false, text, a safe integer,
or one of: {"$i": digits}, {"$f": big-endian float64 in hex}, {"$b": hex}, {"$a": dtype, "shape", "hex"}, a list,
{"$d": [[key, value], …]} sorted by UTF-16 units. {"$t": dtype, "shape", "hex"} is made a tensor of torch's here; coming
out, it is an array like any other. A float that is a safe integer counts as one: JSON in JavaScript has
no other.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

try:
    import torch
except ImportError:
    torch = None

SAFE = 2**53 - 1


def array_out(array: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.newbyteorder("=").name, "shape": list(array.shape), "hex": little.tobytes().hex()}


def array_in(value: dict[str, Any]) -> np.ndarray:
    little = np.frombuffer(bytes.fromhex(value["hex"]), dtype=np.dtype(value["dtype"]).newbyteorder("<"))
    array = little.reshape(value["shape"])
    # a copy: what is read from hex is read-only, and the wheel wants arrays of its own
    return array.astype(array.dtype.newbyteorder(value.get("order", "=")), copy=True)


def is_tensor(value: Any) -> bool:
    return torch is not None and isinstance(value, torch.Tensor)


def tensor_out(tensor: Any) -> dict[str, Any]:
    raw = tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "hex": raw.hex()}


def tensor_in(value: dict[str, Any]) -> Any:
    dtype = getattr(torch, value["dtype"])
    raw = bytearray.fromhex(value["hex"])
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return flat.reshape(value["shape"])


def out(value: Any) -> Any:
    if is_tensor(value):
        array = tensor_out(value)
        return {"$a": array["dtype"], "shape": array["shape"], "hex": array["hex"]}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value) if abs(int(value)) <= SAFE else {"$i": str(int(value))}
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number.is_integer() and abs(number) <= SAFE and math.copysign(1, number) == (-1 if number < 0 else 1):
            return int(number)
        return {"$f": "7ff8000000000000" if math.isnan(number) else struct.pack(">d", number).hex()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$b": bytes(value).hex()}
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return out(value[()])
        array = array_out(value)
        return {"$a": array["dtype"], "shape": array["shape"], "hex": array["hex"]}
    if isinstance(value, (list, tuple)):
        return [out(item) for item in value]
    if isinstance(value, dict):
        return {"$d": [[key, out(value[key])] for key in sorted(value, key=lambda key: key.encode("utf-16-be"))]}
    raise TypeError(f"no neutral form of {type(value).__name__}")


def back(value: Any) -> Any:
    if isinstance(value, list):
        return [back(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$i" in value:
        return int(value["$i"])
    if "$f" in value:
        return struct.unpack(">d", bytes.fromhex(value["$f"]))[0]
    if "$b" in value:
        return bytes.fromhex(value["$b"])
    if "$a" in value:
        return array_in({**value, "dtype": value["$a"]})
    if "$t" in value:
        return tensor_in({**value, "dtype": value["$t"]})
    return {key: back(item) for key, item in value["$d"]}
