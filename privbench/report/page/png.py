"""Small images as text that a page can show."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

BUDGET = 900_000
"""Characters of images that a page holds beside its figures at most."""


def data_uri(image: np.ndarray) -> str:
    """A PNG of ``(channels, height, width)`` bytes, one channel or three, as a data URI."""
    channels, height, width = image.shape
    rows = np.moveaxis(np.ascontiguousarray(image, dtype=np.uint8), 0, -1).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")
    body = b"".join(_chunk(kind, content) for kind, content in parts)
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


class Album:
    """Images of a page, each kept once and called by its number."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self._known: dict[str, int] = {}
        self._left = BUDGET

    def add(self, image: np.ndarray) -> int | None:
        """Its number; None where the page is full, or it is no image that browsers show."""
        if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
            return None
        text = data_uri(image)
        if text not in self._known:
            if len(text) > self._left:
                return None
            self._left -= len(text)
            self._known[text] = len(self.images)
            self.images.append(text)
        return self._known[text]
