"""Contract objects as bytes, and back: what passes between processes and what lies on disk.

A file is one safetensors file: a JSON skeleton in its metadata, and behind it the bytes of all
tensors, each at a multiple of 64 bytes, so that a tensor's alignment (on which the last bits of a
matrix product may depend) is the same wherever it is decoded. Nothing in it can run code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import isabstract
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from privbench import contract
from privbench.contract import View
from privbench.errors import PluginError, StorageError

_ALIGN = 64  # bytes: a cache line, and the alignment of torch's own allocator
_PLAIN = frozenset({type(None), bool, int, float, str})
_CONTRACT = {name: getattr(contract, name) for name in contract.__all__}
_CLASSES: Mapping[str, Any] = MappingProxyType(
    {n: c for n, c in _CONTRACT.items() if is_dataclass(c) and not isabstract(c)}
)


def _names(kind: Any) -> list[str]:
    """Fields of a registered class, in the order of its constructor."""
    return [f.name for f in fields(kind) if f.init]


_FIELDS: Mapping[Any, tuple[str, list[str]]] = MappingProxyType(
    {kind: (name, _names(kind)) for name, kind in _CLASSES.items()}
)


class _Packed(NamedTuple):
    """An object on its way to bytes: what stands before the tensors, and they themselves."""

    head: bytes
    tensors: list[Tensor]  # flat views of bytes, contiguous, on the CPU


class _Refused(Exception):
    """An object that has no encoding; ``where`` grows on the way up the tree."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.where: list[str] = []


def encode(obj: Any) -> bytes:
    """The bytes of an object.

    Args:
        obj: None, bool, int, float, str, tensors (any dtype, any device), the frozen dataclasses of
            ``privbench.contract``, and tuples, lists, frozensets of plain values and mappings
            with str keys of these. ``View.oracle`` is a live function: it is left out. Tensors
            lose their graph and device; equal tensor objects are stored once.

    Raises:
        PluginError: something else is in it; the message names its type and place.
    """
    return b"".join(_pieces(_pack(obj)))


def decode(data: bytes) -> Any:
    """The object that ``encode`` was given, its tensors in fresh memory on the CPU.

    Raises:
        StorageError: the bytes are cut short or were never written by ``encode``.
    """
    whole = torch.empty(len(data), dtype=torch.uint8)
    if len(data):
        whole.numpy().data[:] = data
    return _unpack(data[:8], lambda n: data[8 : 8 + n], whole.untyped_storage(), "the bytes")


def canonical(obj: Any) -> Iterator[bytes | memoryview]:
    """Like ``encode`` in pieces, but independent of the order of mappings: to be hashed."""
    return _pieces(_pack(obj, ordered=False))


def save(obj: Any, path: Path) -> None:
    """Write an object to a file, whole or not at all.

    Raises:
        PluginError: as ``encode``.
        StorageError: the folder cannot be written.
    """
    path, packed = Path(path), _pack(obj)
    beside = None
    try:
        handle, beside = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for piece in _pieces(packed):
                file.write(piece)
        os.replace(beside, path)
    except OSError as cause:
        raise StorageError(
            f"cannot write '{path}': {cause.strerror or cause}; expected a folder with room that "
            "you may write to: free some space or choose another folder (out=FOLDER)"
        ) from cause
    finally:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)


def load(path: Path) -> Any:
    """Read an object back; its tensors are mapped from the file, in pages copied when written to.

    Writing into such a tensor changes neither the file nor anyone else's copy.

    Raises:
        StorageError: the file is missing, unreadable, cut short or not one of ours.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if os.name == "nt" or not size:  # there, a mapped file could not be deleted
                return decode(file.read())
            mapped: Any = torch.UntypedStorage.from_file(str(path), False, size)  # private pages
            return _unpack(file.read(8), file.read, mapped, f"'{path}'")
    except OSError as cause:
        raise StorageError(f"cannot read '{path}': {cause.strerror or cause}") from cause


class _Walk:
    """One pass over an object: its JSON skeleton, its tensors by number, the classes met."""

    def __init__(self, ordered: bool) -> None:
        self.ordered = ordered
        self.tensors: list[Tensor] = []
        self.table: list[tuple[str, int, list[int]]] = []  # dtype, first byte, shape
        self.classes: dict[str, list[str]] = {}
        self.end = 0
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._alive: list[Tensor] = []  # an address names a tensor only while that one lives

    def node(self, obj: Any) -> Any:
        """The skeleton of one object."""
        kind = type(obj)
        if kind in _PLAIN:
            return obj
        if kind in _FIELDS:
            return self._fields(obj, kind)
        if isinstance(obj, Tensor):
            return ["#", self._number(obj)]
        if kind in (tuple, torch.Size):
            return ["t", *self._items(obj)]
        if kind is list:
            return ["l", *self._items(obj)]
        if kind is frozenset:
            if any(type(item) not in _PLAIN for item in obj):
                raise _Refused("a frozenset holds plain values only")
            return ["s", *sorted(obj, key=lambda item: (type(item).__name__, repr(item)))]
        if isinstance(obj, Mapping):
            return self._mapping(obj)
        raise _Refused(f"{kind.__module__}.{kind.__qualname__} has no encoding")

    def _fields(self, obj: Any, kind: Any) -> list[Any]:
        name, names = _FIELDS[kind]
        self.classes.setdefault(name, names)
        out: list[Any] = ["c", name]
        for field in names:
            value = None if kind is View and field == "oracle" else getattr(obj, field)
            out.append(value if type(value) in _PLAIN else self._at(f".{field}", value))
        return out

    def _items(self, obj: Any) -> list[Any]:
        return [
            item if type(item) in _PLAIN else self._at(f"[{i}]", item) for i, item in enumerate(obj)
        ]

    def _mapping(self, obj: Mapping[Any, Any]) -> dict[str, Any]:
        wrong = next((key for key in obj if type(key) is not str), None)
        if wrong is not None:
            raise _Refused(f"the mapping has the key {wrong!r}, which is not a str,")
        keys = obj if self.ordered else sorted(obj)
        return {key: self._at(f"[{key!r}]", obj[key]) for key in keys}

    def _at(self, where: str, value: Any) -> Any:
        try:
            return self.node(value)
        except _Refused as refused:
            refused.where.append(where)
            raise

    def _number(self, tensor: Tensor) -> int:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise _Refused("a sparse, quantised or meta tensor has no encoding")
        shape, flags = list(tensor.shape), (tensor.is_conj(), tensor.is_neg())
        key = (tensor.data_ptr(), tensor.dtype, *shape, tensor.stride(), flags, tensor.device)
        if key in self._numbers:
            return self._numbers[key]
        flat = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous().reshape(-1)
        raw = flat.view(torch.uint8)
        self._alive.append(tensor)
        self._numbers[key] = number = len(self.tensors)
        self.tensors.append(raw)
        self.table.append((str(tensor.dtype).removeprefix("torch."), self.end, shape))
        self.end += -(-len(raw) // _ALIGN) * _ALIGN
        return number


def _pack(obj: Any, ordered: bool = True) -> _Packed:
    walk = _Walk(ordered)
    try:
        tree = walk.node(obj)
    except _Refused as refused:
        where = f"{type(obj).__name__}{''.join(reversed(refused.where))}"
        raise PluginError(
            f"cannot encode {where}: {refused.reason}; expected None, bool, int, float, str, "
            "tensors, dataclasses of privbench.contract, and tuples, lists, frozensets and "
            "mappings of them (arrays become tensors; attacks, fits and defenses a Spec)"
        ) from None
    skeleton = json.dumps(
        {"classes": walk.classes, "tensors": walk.table, "tree": tree}, separators=(",", ":")
    )
    bulk = {"dtype": "U8", "shape": [walk.end], "data_offsets": [0, walk.end]}
    header = json.dumps({"__metadata__": {"privbench": skeleton}, "bytes": bulk}).encode()
    header += b" " * (-(8 + len(header)) % _ALIGN)
    return _Packed(len(header).to_bytes(8, "little") + header, walk.tensors)


def _pieces(packed: _Packed) -> Iterator[bytes | memoryview]:
    """The bytes of a file, in order, without one large copy."""
    yield packed.head
    for raw in packed.tensors:
        yield raw.numpy().data if len(raw) else b""
        yield bytes(-len(raw) % _ALIGN)


def _unpack(first: bytes, rest: Any, storage: torch.UntypedStorage, what: str) -> Any:
    """Rebuild an object.

    Args:
        first: the eight bytes that give the header's length.
        rest: called with that length, gives the header.
        storage: all bytes, header included.
        what: how messages call the source.
    """
    again = f"{what} cannot be used: delete it and run again, it is then made anew"
    length = int.from_bytes(first, "little")
    if len(first) < 8 or 8 + length > storage.nbytes():
        need = f"{8 + length} for its header" if len(first) == 8 else "8 for its length"
        raise StorageError(f"{again}; it holds {storage.nbytes()} bytes, expected at least {need}")
    try:
        header = json.loads(rest(length))
        end = int(header["bytes"]["data_offsets"][1])
        skeleton = json.loads(header["__metadata__"]["privbench"])
        classes, table, tree = (skeleton[key] for key in ("classes", "tensors", "tree"))
    except (ValueError, LookupError, TypeError) as cause:
        raise StorageError(f"{again}; its header is damaged or was not written by us") from cause
    start = 8 + length
    if storage.nbytes() != start + end:
        raise StorageError(f"{again}; it holds {storage.nbytes()} bytes, expected {start + end}")
    for name, names in classes.items():
        if name not in _CLASSES or _FIELDS[_CLASSES[name]][1] != names:
            raise StorageError(f"{again}; its '{name}' is that of another version of privbench")
    try:
        tensors = [_tensor(storage, start, end, *entry) for entry in table]
        return _build(tree, tensors)
    except (LookupError, TypeError, AttributeError, RuntimeError, _Refused) as cause:
        raise StorageError(f"{again}; its contents are damaged: {cause}") from cause


def _tensor(
    storage: torch.UntypedStorage, start: int, end: int, name: str, first: int, shape: list[int]
) -> Tensor:
    dtype = getattr(torch, name)
    blank = torch.empty(0, dtype=dtype)
    stride, count = [], 1
    for size in reversed(shape):
        stride.append(count)
        count *= max(size, 1)
    nbytes = 0 if 0 in shape else count * blank.element_size()
    if min([first, *shape]) < 0 or first + nbytes > end or (start + first) % blank.element_size():
        raise _Refused("a tensor lies outside the file")
    if not nbytes:
        return torch.empty(shape, dtype=dtype)
    offset = (start + first) // blank.element_size()
    return blank.set_(storage, offset, shape, stride[::-1])


def _build(node: Any, tensors: list[Tensor]) -> Any:
    """The object of a skeleton."""
    if type(node) is dict:
        return {key: _build(value, tensors) for key, value in node.items()}
    if type(node) is not list:
        return node
    tag = node[0]
    if tag == "#":
        return tensors[node[1]]
    built = [
        _build(item, tensors) if type(item) in (list, dict) else item
        for item in node[2 if tag == "c" else 1 :]
    ]
    if tag == "c":
        return _CLASSES[node[1]](*built)
    return _SEQUENCES[tag](built)


_SEQUENCES: Mapping[str, Any] = MappingProxyType({"t": tuple, "l": list, "s": frozenset})
