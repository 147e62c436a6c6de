"""Gradients of stem and tail on their way to the coordinator: each owner's, or their sum alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import OWNERS, Message
from privbench.slicenet.owners import Dues
from privbench.slicenet.parcels import COORDINATOR
from privbench.wire.wire import Wire


def hand_in(
    wire: Wire, step: int, kind: str, tensors: Mapping[str, Tensor], dues: Dues, masked: bool
) -> None:
    """Each owner sends the gradient of its rows, one message a tensor.

    Args:
        tensors: of stem or tail, live; where a message was changed on its way, they get the sum of what
            arrived as their gradient.
        masked: nobody but its owner can read a message.
    """
    totals: dict[str, Tensor] = {}
    changed = False
    for owner, rows, found in dues:
        for name, value in found.items():
            message = Message(step, "train", owner, COORDINATOR, kind, name, None, value, rows)
            got = wire.masked(message) if masked else wire.send(message)
            changed = changed or got.payload is not value
            added = got.payload.to(value)
            totals[name] = totals[name] + added if name in totals else added
    for name, total in totals.items() if changed else ():
        tensors[name].grad = total.clone()  # what taps keep must not be scaled with it


def tell_sums(
    wire: Wire,
    step: int,
    kind: str,
    tensors: Mapping[str, Tensor],
    rows: Int64[Tensor, " rows"],
) -> None:
    """What masked gradients add up to is all that the coordinator hears: one message a tensor.

    Args:
        tensors: of stem or tail, with the gradients of the step.
        rows: all of the step.
    """
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            total = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
            ends = (OWNERS, COORDINATOR)
            wire.unmask(Message(step, "train", *ends, kind, name, None, total.detach(), rows))
