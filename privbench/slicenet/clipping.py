"""A bound on the norm of a step's whole gradient, of which every host holds a part alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from privbench.contract import HEADER_BYTES, Message, Party, Slice
from privbench.slicenet.graph import Stage
from privbench.slicenet.parcels import COORDINATOR
from privbench.wire.wire import Wire

SMALL = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def factor_of(square: Tensor, most: float) -> Tensor:
    """What a gradient is multiplied by, so that its norm is at most ``most``.

    Args:
        square: of the norm, shape (1,).
    """
    return (most / (square.sqrt() + SMALL)).clamp(max=1.0)


def square_of(gradients: Iterable[Tensor | None], like: Tensor) -> Tensor:
    """Sum of squares, shape (1,), in the arithmetic of ``like``."""
    found = [each.square().sum() for each in gradients if each is not None]
    return like.new_tensor([0.0]) if not found else torch.stack(found).sum().reshape(1)


class Clipping:
    """What hosts and coordinator tell each other so that all clip by one norm.

    Each host sends the squared norm of its slice's gradient, one declared number (kind ``norm``); the
    coordinator adds that of stem and tail and sends the factor back to each.

    Args:
        most: the largest norm of the whole gradient.
        parameters: of the network, with the gradients of a step when ``clip`` is called.
    """

    def __init__(self, most: float, wire: Wire, parameters: Iterable[Tensor]) -> None:
        self._most, self._wire = most, wire
        self._parameters = [each for each in parameters if each.requires_grad]

    def clip(self, step: int, pieces: Sequence[Slice], stages: Sequence[Stage]) -> None:
        """Scale every gradient. Bit-equal to centralized training, unless a message was changed."""
        hosts = tuple(dict.fromkeys(piece.party for piece in pieces))
        like = self._parameters[0]
        if not self._wire.wants(step, "norm"):
            self._wire.count("norm", 2 * len(hosts) * (like.element_size() + HEADER_BYTES))
        elif (told := self._told(step, hosts, pieces, stages)) is not None:
            for each in self._parameters:
                if each.grad is not None:
                    each.grad.mul_(told)
            return
        torch.nn.utils.clip_grad_norm_(self._parameters, self._most)

    def _told(
        self, step: int, hosts: Sequence[Party], pieces: Sequence[Slice], stages: Sequence[Stage]
    ) -> Tensor | None:
        """Send all numbers; the factor that comes of them where one was changed, else None."""
        like = self._parameters[0].detach()
        tensors = {stage.layer.name: stage.tensors.values() for stage in stages}
        theirs: dict[Party, Tensor] = {host: like.new_zeros(1) for host in hosts}
        hosted: set[int] = set()
        for piece in pieces:
            slopes = [_slope(piece, whole) for whole in tensors[piece.layer]]
            theirs[piece.party] = theirs[piece.party] + square_of(slopes, like)
            hosted.update(id(whole) for whole in tensors[piece.layer])
        own = (p.grad for p in self._parameters if id(p) not in hosted)
        total = square_of(own, like)
        changed = False
        for host, square in theirs.items():
            got = self._send(step, host, COORDINATOR, square)
            changed = changed or got is not square
            total = total + got.to(total)
        factor = factor_of(total, self._most)
        for host in hosts:
            self._send(step, COORDINATOR, host, factor)
        return factor if changed else None

    def _send(self, step: int, sender: Party, receiver: Party, payload: Tensor) -> Tensor:
        message = Message(step, "train", sender, receiver, "norm", "", None, payload)
        return self._wire.send(message).payload


def _slope(piece: Slice, whole: Tensor) -> Tensor | None:
    """The part of a tensor's gradient that a host holds."""
    return None if whole.grad is None else piece.part(whole.grad)
