"""What the server of federated averaging sees of clients with one or a few samples each."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from privbench.contract import (
    Federation,
    Message,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
)

RATE = 0.1


def server(net: Net, samples: Samples, auxiliary: Samples, each: int = 1) -> View:
    """One round: every client takes one step of SGD on ``each`` of its samples, and tells its update.

    Args:
        net: with its weights, which the server sent out.
    """
    clients = tuple(f"client-{number}" for number in range(len(samples) // each))
    assert samples.y is not None
    messages = []
    module = net.module()
    names = [name for name, _ in module.named_parameters()]
    for number, client in enumerate(clients):
        at = torch.arange(number * each, (number + 1) * each)
        loss = F.cross_entropy(module(samples.x[at]), samples.y[at])
        slopes = torch.autograd.grad(loss, list(module.parameters()))
        messages += [
            Message(0, "train", client, "server", "update", name, None, -RATE * slope, at)
            for name, slope in zip(names, slopes, strict=True)
        ]
    optimizer = Spec("torch.optim.SGD", {"lr": RATE})
    federation = Federation(clients=len(clients), rounds=1, local_steps=1)
    recipe = Recipe(Net(net.spec), optimizer, epochs=1, batch=each, federation=federation)
    index = torch.arange(len(samples))
    return View(
        Seat("server", "infrastructure", ("server",), grants=frozenset({"model_weights"})),
        Topology("fedavg", ("server", *clients), clients, Net(net.spec), 1, 1),
        victims=torch.stack([torch.zeros_like(index), index], dim=1),
        messages=tuple(messages),
        weights=(Weights(0, "", None, dict(net.weights or {})),),
        public=Public(auxiliary=auxiliary, recipe=recipe),
    )
