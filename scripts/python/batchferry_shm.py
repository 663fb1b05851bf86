"""Mooncake's store protocol over Batchferry's shared-memory folder: one host, no master, no service.

What TypeScript puts with the shm backend, Mooncake's own Python class reads, appends to and cleans up, and the other
way round. Linux, Python 3.9 or later, standard library only. `src/store/shm/format.ts` says what the files are.

    from batchferry_shm import ShmStore
    from mooncake.structured_object_store import MooncakeBundleTransfer

    with ShmStore() as store:
        transfer = MooncakeBundleTransfer(store)
        batch = transfer.get(handle, rows=slice(0, 128))  # a handle of TypeScript's, or of another Python process
        handle = transfer.append_dataproto_fields(handle, {"batch": {"reward": reward}}, stage="reward")
        transfer.cleanup_dataproto(handle)
"""

from __future__ import annotations

import atexit, ctypes, errno, fcntl, hashlib, itertools, json, os, re, secrets, stat, struct, threading, zlib
from contextlib import contextmanager, suppress
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence, TypeVar

OK, INVALID_PARAMS, OBJECT_NOT_FOUND = 0, -600, -704
POOL_FILES, POOL_BYTES = 1024, 256 << 20  # the most that deleters leave to an owner for its next bundles

_TRIES = 10  # others remove empty folders at the same time
_PIECE = 1 << 30  # the kernel reads and writes less than 2 GiB at once
_MAGIC = b"BFSHM\0\0\1"
_HEADER = struct.Struct("<8s3QII24x64s")  # magic, used bytes, table offset, table bytes, table crc32, 0, owner tag
_TENSOR = bytes.fromhex("4e4f4f4d01003001")  # how the 304 bytes before a tensor's numbers begin
_OBJECT_ID = re.compile(r"(?:(.*)/)?([0-9a-f]{32})(?:/(.*))?", re.DOTALL)
_OWNER = re.compile(r"[0-9]{1,10}-[0-9]{1,20}-[0-9a-f]{16}")
_Ranges = Sequence[Sequence[Sequence[int]]]
_Result = TypeVar("_Result")
_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_memory.restype, _memory.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


class _Found(NamedTuple):
    fd: int
    path: str
    owner: str
    offset: int
    size: int


class ShmStore:
    """The objects below a folder: `BATCHFERRY_DIRECTORY`, else `/dev/shm`, unless it is named.

    Gives Mooncake's status codes, and raises what they cannot say: PermissionError or NotADirectoryError for a folder
    that is not to be trusted, OSError for a full file system, ValueError for a damaged file or a closed store. Threads
    may share a store, and a forked child may go on with its parent's.
    """

    def __init__(self, directory: str | None = None) -> None:
        directory = os.path.abspath(directory or os.environ.get("BATCHFERRY_DIRECTORY") or "/dev/shm")
        self.root = os.path.join(directory, f"batchferry-{os.geteuid()}")
        self._owner, self._lock, self._pid, self._closed = "", -1, -1, False
        self._mutex, self._count = threading.Lock(), itertools.count()
        self._tables: dict[str, tuple[tuple[int, int], str, dict[str, tuple[int, int]]]] = {}
        self._within((), lambda: None)
        # the pools first: an owner has its lock before it has a pool
        for owner in filter(_OWNER.fullmatch, [*self._names("pool"), *self._names("owners")]):
            self._sweep(owner)
        atexit.register(self.close)

    def __enter__(self) -> ShmStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up this store's lock and removes empty folders; what was put stays. May be called again."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._pid == os.getpid():  # in a forked child it is the parent's
            self._empty(self._owner)
            with suppress(FileNotFoundError):
                os.unlink(self._path("owners", self._owner))
            os.close(self._lock)
        for folder in (*(f"live/{name}" for name in self._names("live")), "live", "pool", "owners"):
            with suppress(OSError):
                os.rmdir(self._path(folder))
        with suppress(OSError):
            os.rmdir(self.root)

    def put(self, key: str, value: Any, config: object = None) -> int:
        """Stores bytes; like Mooncake, keeps the old ones where the key is there, and takes no empty value."""
        data = memoryview(value)
        if data.nbytes == 0 or not key or key.strip("/") != key:
            return INVALID_PARAMS
        if self.is_exist(key):
            return OK
        data, path = data.cast("B"), self._paths(key)[-1]
        offset = 144 if data[:8] == _TENSOR else 128  # a tensor's numbers start at a multiple of 64
        end = offset + len(data)
        table = json.dumps([[key, offset, len(data)]]).encode()
        owner = self._own()
        head = _HEADER.pack(_MAGIC, end + len(table), end, len(table), zlib.crc32(table), 0, owner.encode())
        new = self._path("pool", owner, f"w-{next(self._count)}")
        try:
            self._within(("pool", owner), lambda: _write(new, ((head, 0), (data, offset), (table, end))))
            self._within(("live", os.path.basename(os.path.dirname(path))), lambda: os.rename(new, path))
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(new)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "drop batches that are done with, enlarge it, or use another directory"
                raise OSError(error.errno, f"no room for {end} bytes; {hint}", self.root) from error
            raise
        return OK

    def get(self, key: str) -> bytes:
        """An object's bytes; none where it is absent."""
        with self._open(key) as found:
            if found is None:
                return b""
            pieces = range(0, found.size, _PIECE)
            return b"".join(os.pread(found.fd, min(_PIECE, found.size - at), found.offset + at) for at in pieces)

    def get_into_ranges(
        self, ptrs: Sequence[int], keys: Sequence[Sequence[str]], to: _Ranges, start: _Ranges, sizes: _Ranges
    ) -> list[list[list[int]]]:
        """Copies `sizes` bytes of objects from `start` to `ptr + to`; gives the same sizes, or statuses below 0."""
        results: list[list[list[int]]] = []
        for ptr, *group in zip(ptrs, keys, to, start, sizes):
            results.append([])
            for key, run in itertools.groupby(zip(*group), key=lambda ranges: ranges[0]):
                with self._open(key) as found:
                    results[-1] += [[_read(found, ptr + t, s, n) for t, s, n in zip(*ranges[1:])] for ranges in run]
        return results

    def register_buffer(self, ptr: int, size: int) -> int:
        """Needs nothing: files are read to any address."""
        return OK

    def unregister_buffer(self, ptr: int) -> int:
        return OK

    def is_exist(self, key: str) -> int:
        return int(self.get_size(key) >= 0)

    def get_size(self, key: str) -> int:
        with self._open(key) as found:
            return OBJECT_NOT_FOUND if found is None else found.size

    def remove(self, key: str, force: bool = False) -> int:
        """Removes an object; a bundle that was put as one file goes whole, by any of its keys."""
        with self._open(key) as found:
            with suppress(FileNotFoundError):  # another was faster
                if found is None:
                    return OBJECT_NOT_FOUND
                if found.path != self._paths(key)[-1] and self._has_room(found.owner, os.fstat(found.fd).st_size):
                    with suppress(FileNotFoundError):  # its owner has just closed
                        os.rename(found.path, self._path("pool", found.owner, os.path.basename(found.path)))
                        return OK
                os.unlink(found.path)
                return OK
        return OBJECT_NOT_FOUND

    def batch_remove(self, keys: Sequence[str], force: bool = False) -> list[int]:
        return [self.remove(key, force) for key in keys]

    def _path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def _paths(self, key: str) -> list[str]:
        """The files a key may be in: its bundle's where it is below an object id, and at last its own."""
        match = _OBJECT_ID.fullmatch(key)
        if match:
            folder, bundle, own = match[1] or "", [match[2]], f"{match[2]}~{_escape(match[3] or '')}"
        else:
            folder, slash, last = key.rpartition("/")
            bundle, own, names = [], f"~{_escape(last)}", f"/{key}".rfind("/names/")
            if slash and names >= 0:
                folder, own = key[: max(0, names - 1)], f"names~{_escape(key[names + 6 :])}"
        return [self._path("live", _escape(folder), name) for name in (*bundle, own)]

    def _names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):
            return os.listdir(self._path(folder))
        return []

    def _make(self, *parts: str) -> None:
        """Makes the root, unless it is somebody else's, and the folders below it on the way to the last one."""
        with suppress(FileExistsError):
            os.mkdir(self.root, 0o700)
        info = os.lstat(self.root)
        mode = info.st_mode & 0o777
        if not stat.S_ISDIR(info.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is no folder; remove it or use another directory", self.root)
        if (mode, info.st_uid) != (0o700, os.geteuid()):
            actual = f"has mode {mode:04o} and user {info.st_uid} instead of 0700 and {os.geteuid()}"
            raise PermissionError(errno.EPERM, f"{actual}; remove it or use another directory", self.root)
        for i in range(len(parts)):
            with suppress(FileExistsError):
                os.mkdir(self._path(*parts[: i + 1]), 0o700)

    def _within(self, folder: tuple[str, ...], act: Callable[[], _Result]) -> _Result:
        """Does what needs a folder, which others may remove for as long as it is empty."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._make(*folder)
                return act()
            except FileNotFoundError:
                if attempt == _TRIES:
                    raise
        raise AssertionError("not reached")

    def _own(self) -> str:
        """The owner this process is: a name whose file it holds a lock on."""
        if self._closed:
            raise ValueError("the store is closed")
        with self._mutex:
            while self._pid != os.getpid() or not os.path.exists(self._path("owners", self._owner)):
                with open("/proc/self/stat", encoding="latin-1") as file:
                    start = file.read().rpartition(")")[2].split()[19]
                name = f"{os.getpid()}-{start}-{secrets.token_hex(8)}"
                path = self._path("owners", name)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = self._within(("owners",), lambda: os.open(path, flags, 0o600))
                if not _locked(fd, path, fcntl.LOCK_EX):  # somebody took it for a dead one's
                    os.close(fd)
                    continue
                if self._lock >= 0:  # the parent's, or of a folder that was removed
                    os.close(self._lock)
                self._owner, self._lock, self._pid = name, fd, os.getpid()
            return self._owner

    def _sweep(self, owner: str) -> bool:
        """Removes what an owner left half-done if it is dead; whether it is."""
        lock = self._path("owners", owner)
        with _hold(lock, fcntl.LOCK_EX) as fd:
            if fd is None and os.path.exists(lock):
                return False
            self._empty(owner)
            with suppress(FileNotFoundError):
                os.unlink(lock)
        return True

    def _empty(self, owner: str) -> None:
        for name in self._names(f"pool/{owner}"):
            with suppress(FileNotFoundError):
                os.unlink(self._path("pool", owner, name))
        with suppress(OSError):
            os.rmdir(self._path("pool", owner))

    def _has_room(self, owner: str, size: int) -> bool:
        """Whether an owner lives and may be left one more file to fill again."""
        if not _OWNER.fullmatch(owner) or self._sweep(owner):
            return False
        with suppress(FileNotFoundError), os.scandir(self._path("pool", owner)) as files:
            sizes = [file.stat(follow_symlinks=False).st_size for file in files]
            return len(sizes) < POOL_FILES and sum(sizes) + size <= POOL_BYTES
        return False

    @contextmanager
    def _open(self, key: str) -> Iterator[_Found | None]:
        """Where an object is; its file is not filled anew meanwhile."""
        if self._closed:
            raise ValueError("the store is closed")
        for path in self._paths(key):
            for _ in range(_TRIES):
                with _hold(path, fcntl.LOCK_SH) as fd:
                    if fd is not None:
                        owner, table = self._read_table(fd, path)
                        if key in table:
                            yield _Found(fd, path, owner, *table[key])
                            return
                        break
                if not os.path.exists(path):  # else a name that was put anew
                    break
        yield None

    def _read_table(self, fd: int, path: str) -> tuple[str, dict[str, tuple[int, int]]]:
        info = os.fstat(fd)
        if path in self._tables and self._tables[path][0] == (info.st_ino, info.st_size):
            return self._tables[path][1:]
        head = os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
        magic, used, at, size, crc, _, owner = _HEADER.unpack(head)
        table = os.pread(fd, size, at) if magic == _MAGIC and at + size <= used <= info.st_size else b""
        entries = json.loads(table) if table and zlib.crc32(table) == crc else []
        if not entries or any(offset < _HEADER.size or n < 0 or offset + n > at for _, offset, n in entries):
            raise ValueError(f"{path} is damaged, or of another version")
        found = owner.rstrip(b"\0").decode("ascii", "replace"), {key: (offset, n) for key, offset, n in entries}
        if "~" not in path.rpartition("/")[2]:  # a bundle; what was put alone may be put anew
            if len(self._tables) >= 64:
                self._tables.clear()
            self._tables[path] = (info.st_ino, info.st_size), *found
        return found


def _escape(text: str) -> str:
    """A file name for any text."""
    raw = text.encode()
    name = re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"%%%02X" % byte[0][0], raw).decode() or "%"
    return name if len(name) <= 200 else f"{name[:160]}~{hashlib.sha256(raw).hexdigest()[:32]}"


def _locked(fd: int, path: str, how: int) -> bool:
    """Locks a file without waiting; whether that worked and the path still names it."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False


@contextmanager
def _hold(path: str, how: int) -> Iterator[int | None]:
    """A locked file that its path names; None where it is not there or locked by others."""
    fd = -1
    with suppress(FileNotFoundError, NotADirectoryError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd if fd >= 0 and _locked(fd, path, how) else None
    finally:
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough where a child was forked meanwhile
            os.close(fd)


def _read(found: _Found | None, address: int, start: int, size: int) -> int:
    """Copies a range of an object to an address; gives its size, or a status below 0."""
    if found is None:
        return OBJECT_NOT_FOUND
    if min(start, size) < 0 or start + size > found.size:
        return INVALID_PARAMS
    into, done = _memory(address, size, 0x200), 0  # writable
    while done < size:
        count = os.preadv(found.fd, [into[done : done + _PIECE]], found.offset + start + done)
        if count == 0:
            raise ValueError(f"{found.path} is cut short")
        done += count
    return size


def _write(path: str, parts: Iterable[tuple[bytes | memoryview, int]]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for part, at in parts:
            done = 0
            while done < len(part):
                done += os.pwrite(fd, memoryview(part)[done : done + _PIECE], at + done)
    finally:
        os.close(fd)
