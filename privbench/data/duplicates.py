"""Records that occur twice: the same bytes, or nearly the same image, in two splits."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

NEAR = 0.02  # root mean square difference, inputs in [0, 1]: about 5 of 255 grey levels
LOOKED_AT = 4_000  # records a side that are compared; distances grow with their product


def repeated(x: Float[Tensor, "n ..."], order: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which records have the bytes of one that comes earlier in ``order``."""
    seen: set[bytes] = set()
    twice = torch.zeros(len(x), dtype=torch.bool)
    for i in order.tolist():
        key = hashlib.sha256(x[i].contiguous().numpy().tobytes()).digest()
        twice[i] = key in seen
        seen.add(key)
    return twice


def nearness(members: Float[Tensor, "n ..."], others: Float[Tensor, "m ..."]) -> str:
    """One sentence on near duplicates between the members and records of other splits."""
    mine, theirs = members[:LOOKED_AT].flatten(1), others[:LOOKED_AT].flatten(1)
    if not len(mine) or not len(theirs):
        return ""
    chunks = mine.double().split(500)
    squares = torch.cat([torch.cdist(chunk, theirs.double()).amin(dim=1) for chunk in chunks])
    distances = squares / mine.shape[1] ** 0.5
    near = int((distances < NEAR).sum())
    return (
        f"near duplicates: {near} of {len(mine)} members lie within {NEAR} (root mean square) of a "
        f"record in another split; the closest pair is {float(distances.min()):.3f} apart"
    )
