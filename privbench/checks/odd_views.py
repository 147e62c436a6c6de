"""Views as they seldom are, and still may be: little in them, or nothing, or of another precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from privbench.contract import Message, Net, View


def half(view: View) -> View:
    """Messages in half precision, as a wire may send them."""
    return replace(view, messages=tuple(_halved(message) for message in view.messages))


def silent(view: View) -> View:
    """A seat that nothing was sent to."""
    return replace(view, messages=())


def lonely(view: View) -> View:
    """One victim."""
    return replace(view, victims=view.victims[:1])


def constant(view: View) -> View:
    """Auxiliary inputs that are all the same grey, and rows of which nothing but zeros crossed."""
    public = view.public
    if public.auxiliary is not None:
        grey = torch.full_like(public.auxiliary.x, 0.5)
        public = replace(public, auxiliary=replace(public.auxiliary, x=grey))
    zeros = tuple(replace(m, payload=torch.zeros_like(m.payload)) for m in view.messages)
    return replace(view, public=public, messages=zeros)


def poor(view: View) -> View:
    """Two auxiliary records: far fewer pairs than unknowns; what fits learned was of all of them."""
    public = view.public
    if public.auxiliary is not None and not view.fitted:
        public = replace(public, auxiliary=public.auxiliary[:2])
    return replace(view, public=public)


def broken(view: View) -> View:
    """A released model that answers NaN."""
    net = view.public.net
    if net is not None and net.weights is not None:
        nans = {name: torch.full_like(tensor, torch.nan) for name, tensor in net.weights.items()}
        net = Net(net.spec, nans)
    return replace(view, public=replace(view.public, net=net))


ODD: tuple[Callable[[View], View], ...] = (half, silent, lonely, constant, poor, broken)


def _halved(message: Message) -> Message:
    floating = message.payload.is_floating_point()
    return replace(message, payload=message.payload.half()) if floating else message
