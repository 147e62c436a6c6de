"""What crosses the wire: messages, and the rows that name their samples.

A *row* is a handle to one sample: the pair (step, index), its position in the batch of one step.
Tensors of rows have shape ``(n, 2)``. Only the truth can say which sample a row was, and nothing links
rows of two steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.errors import PluginError

Party = str
"""Name of a participant: ``device-3``, ``coordinator``, ``trainer``, ``server``, ``client-2``."""

OWNERS: Party = "owners"
"""Sender of a sum over all owners of a step, of which its receiver learns no summand."""

ROW_KINDS = ("samples", "labels", "activation", "partial_sum", "gradient")
"""Kinds whose payload is ``(len(rows), *features)``."""

TENSOR_KINDS = (
    "update",
    "global_weights",
    "stem_gradient",
    "tail_gradient",
    "stem_weights",
    "tail_weights",
    "slice_weights",
)
"""Kinds that carry one parameter tensor, named by ``layer`` (its name in the state dict)."""

KINDS = (*ROW_KINDS, *TENSOR_KINDS, "norm")

HEADER_BYTES = 32
"""Fixed cost of a message beside its payload: step, phase, kind, parties, layer, counts."""


def no_rows() -> Int64[Tensor, " 0"]:
    """The rows of a message that carries no samples."""
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Message:
    """One tensor on its way from one party to another.

    Args:
        step: training step (round, in federated averaging), from 0.
        phase: ``train`` or ``evaluate``.
        sender, receiver: parties.
        kind: one of ``KINDS``.
        layer: name of the layer whose output (or gradient) this is; for one-tensor kinds
            the name of the parameter.
        units: indices of the output channels that the payload holds; None = all of them.
        payload: detached tensor; for ``ROW_KINDS`` its first axis runs over ``rows``.
        rows: positions in the step's batch, shape ``(n,)``; for one-tensor kinds the rows that
            the tensor was computed from, where the protocol tells them; a view's broadcast weights
            name the rows that are computed with them.

    Raises:
        PluginError: unknown kind, or rows and payload of different length.
    """

    step: int
    phase: str
    sender: Party
    receiver: Party
    kind: str
    layer: str
    units: tuple[int, ...] | None
    payload: Tensor
    rows: Int64[Tensor, " n"] = field(default_factory=no_rows)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PluginError(
                f"message kind '{self.kind}' is unknown; kinds are {', '.join(KINDS)}"
            )
        if self.kind in ROW_KINDS and self.payload.shape[:1] != self.rows.shape:
            raise PluginError(
                f"a message of kind '{self.kind}' holds one payload row for each of its rows; "
                f"got {len(self.rows)} rows and a payload of shape {tuple(self.payload.shape)}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes on the wire: payload and header."""
        return self.payload.numel() * self.payload.element_size() + HEADER_BYTES
