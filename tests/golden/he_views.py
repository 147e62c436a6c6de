"""Views of whoever receives a layer of one of He's networks, made by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Samples,
    Seat,
    Topology,
    View,
    Weights,
    traced,
)
from privbench.toolkit.prefix import truncated

SERVER = "split_server"


def view_of(
    net: Net, cut: str, x: Tensor, auxiliary: Samples, grant: str = "prefix_weights"
) -> View:
    """What a server is sent of some images, and what it knows.

    Args:
        net: trained; its modules have the paper's names.
        cut: the module whose output is sent.
        x: images, ``(n, channels, side, side)``.
        auxiliary: images that are the attacker's own.
        grant: ``prefix_weights``: it knows the layers before the cut, and so has as many pairs as it has
            images.
    """
    recorded = traced(net.module())
    node = next(node.name for node in recorded.graph.nodes if node.target == cut)
    prefix = truncated(recorded, node)
    with torch.no_grad():
        sent = torch.cat([prefix(part) for part in x.split(250)])
    shape = tuple(sent.shape[1:])
    state = dict(net.weights or {})
    layer = Layer(cut, node, "stem", shape[0], shape, tuple(state))
    rows = torch.arange(len(x))
    message = Message(0, "train", "client", SERVER, "activation", cut, None, sent, rows)
    return View(
        seat=Seat(
            SERVER, "infrastructure", (SERVER,), grants=frozenset({"auxiliary", grant}),
            pairs="prefix",
        ),
        topology=Topology(
            "split", ("client", SERVER), ("client",), Net(net.spec), 1, 1, (layer,)
        ),
        victims=torch.stack([torch.zeros_like(rows), rows], dim=1),
        messages=(message,),
        weights=(Weights(0, cut, None, state),),
        public=Public(auxiliary=auxiliary),
    )  # fmt: skip
