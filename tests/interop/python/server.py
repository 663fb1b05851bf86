"""Mooncake's own class over ShmStore, told what to do by JSON lines: {"op", …} in, {"result"} or {"error"} out."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import numpy as np
from batchferry_shm import ShmStore
from mooncake.structured_object_store import (
    FieldSchema,
    MooncakeBundleTransfer,
    export_dataproto_ref,
    import_dataproto_ref,
)
from neutral import array_in, array_out, back, is_tensor, out, tensor_in, tensor_out, torch

TENSOR_DTYPES = (
    "float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool float16 bfloat16 float8_e4m3fn float8_e5m2"
).split()


class Server:
    def __init__(self) -> None:
        self.store: Any = None
        self.transfer: Any = None

    def open(
        self, directory: str | None, prefix: str = "bundle", chunk_bytes: int = 64 << 20, master: str | None = None,
        memory: int = 0,
    ) -> str:
        """Over a folder, or over the cluster of a master, to which this process gives memory."""
        self.close()
        if master is None:
            self.store = ShmStore(directory)
        else:
            from mooncake.store import MooncakeDistributedStore

            self.store = MooncakeDistributedStore()
            hostname = os.environ.get("MOONCAKE_LOCAL_HOSTNAME", "127.0.0.1")
            protocol = os.environ.get("MOONCAKE_PROTOCOL", "tcp")
            device = os.environ.get("MOONCAKE_DEVICE_NAME", "")
            code = self.store.setup(hostname, "P2PHANDSHAKE", memory, 64 << 20, protocol, device, master)
            if code != 0:
                raise RuntimeError(f"setup failed with {code}")
        self.transfer = MooncakeBundleTransfer(self.store, key_prefix=prefix, default_chunk_bytes=chunk_bytes)
        return getattr(self.store, "root", master)

    def close(self) -> None:
        if self.store is not None:
            self.store.close()

    def put(self, fields: list[Any], partition: str, stage: str, meta: Any, chunk_bytes: int | None = None) -> Any:
        data, schemas = envelope(fields, meta)
        ref = self.transfer.put(
            data, type="dataproto", namespace="default", partition=partition, stage=stage, chunk_bytes=chunk_bytes,
            field_schemas=schemas,
        )
        return export_dataproto_ref(ref)

    def append(self, handle: Any, fields: list[Any], stage: str, meta: Any, overwrite: bool = False) -> Any:
        data, schemas = envelope(fields, meta)
        ref = self.transfer.append_dataproto_fields(
            import_dataproto_ref(handle), data, stage=stage, overwrite=overwrite, field_schemas=schemas
        )
        return export_dataproto_ref(ref)

    def get(self, handle: Any, rows: Any = None, fields: list[str] | None = None) -> Any:
        selected = slice(*rows["slice"]) if isinstance(rows, dict) else rows
        result = self.transfer.get(import_dataproto_ref(handle), fields=fields, rows=selected)
        columns = {}
        for section in ("batch", "non_tensor_batch"):
            for name, value in result[section].items():
                columns[name] = column_out(value)
        return {"columns": columns, "meta": out(result["meta_info"])}

    def cleanup(self, handle: Any) -> None:
        self.transfer.cleanup_dataproto(import_dataproto_ref(handle))

    def cleanup_append(self, previous: Any, appended: Any) -> None:
        self.transfer.cleanup_dataproto_append(import_dataproto_ref(previous), import_dataproto_ref(appended))

    def read(self, key: str) -> str:
        """An object's bytes, as the store gives them."""
        return self.store.get(key).hex()

    def call(self, name: str, args: list[Any]) -> Any:
        """Any call of the store; bytes in and out are {"$b": hex}."""
        return out(getattr(self.store, name)(*back(args)))

    def ranges(self, key: str, ranges: list[list[int]]) -> Any:
        """[offset, bytes] of an object, one after the other, as the class reads them; and the sizes it was told."""
        buffer = np.zeros(sum(max(0, n) for _, n in ranges), dtype=np.uint8)
        starts, at = [], 0
        for _, n in ranges:
            starts.append(at)
            at += max(0, n)
        sizes = self.store.get_into_ranges(
            [buffer.ctypes.data], [[key] * len(ranges)], [[[at] for at in starts]],
            [[[offset] for offset, _ in ranges]], [[[n] for _, n in ranges]],
        )
        return {"sizes": sizes, "hex": buffer.tobytes().hex()}

    def tensor(self, key: str) -> Any:
        """A tensor payload by Mooncake's 304-byte header, without torch."""
        data = self.store.get(key)
        head = np.frombuffer(data[:24], dtype="<i4")
        offset, size = (int(n) for n in np.frombuffer(data[24:40], dtype="<u8"))
        shapes = np.frombuffer(data[40:168], dtype="<i8").reshape(2, 8).tolist()
        magic, ndim = data[:8].hex(), int(head[3])
        return {
            "magic": magic, "dtype": TENSOR_DTYPES[int(head[2])], "shape": shapes[0][:ndim],
            "same": shapes[0] == shapes[1] and set(shapes[0][ndim:]) <= {-1} and not any(data[168:304]),
            "bytes": [offset, size, len(data)], "hex": data[offset : offset + size].hex(),
        }


def column_out(value: Any) -> dict[str, Any]:
    if is_tensor(value):
        return {"rows": [out(row) for row in value.unbind()]} if value.is_nested else {"tensor": tensor_out(value)}
    return {"rows": [out(row) for row in value]} if value.dtype == object else {"array": array_out(value)}


def envelope(fields: list[Any], meta: Any) -> tuple[dict[str, Any], dict[str, FieldSchema] | None]:
    """What the class is given: arrays as they are, other columns as object arrays with or without a declared codec."""
    data: dict[str, dict[str, Any]] = {"batch": {}, "non_tensor_batch": {}, "meta_info": back(meta)}
    schemas = {}
    for field in fields:
        name = field["name"]
        if "tensor" in field:
            data[field.get("section", "batch")][name] = tensor_in(field["tensor"])
            continue
        if "jagged" in field:
            rows = [tensor_in({**row, "dtype": row["$t"]}) for row in field["jagged"]]
            data["batch"][name] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
            continue
        if "array" in field:
            data[field.get("section", "batch")][name] = array_in(field["array"])
            continue
        rows = back(field["rows"])
        column = np.empty(len(rows), dtype=object)
        for i, row in enumerate(rows):  # row by row: a slice assignment would unpack equal lists
            column[i] = row
        data["non_tensor_batch"][name] = column
        if field.get("codec"):
            schemas[name] = FieldSchema(codec=field["codec"], nullable=True, metadata=field.get("metadata", {}))
    return data, schemas or None


def main() -> None:
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(server, request.pop("op"))(**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
    server.close()


if __name__ == "__main__":
    main()
