"""The end of the twin's forward pass: where logits meet labels, in the three ways there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from privbench.contract import Slice


def turn(twin, y, before):
    """The loss, and its gradient on the way back to whoever made the last layer's channels."""
    if twin.labels == "shared":
        at_the_host(twin, y, before)
        return
    for name, rows in twin.rows.items():
        x = twin.gather(name, before, "activation")[rows].requires_grad_()
        owned, logits = [], x
        if twin.labels == "tail":
            owned = [twin.devices[name].public[f"{twin.tail}.{p}"] for p in ("weight", "bias")]
            logits = twin.apply(*owned, x)
        loss = F.cross_entropy(logits, y[rows], reduction="sum") / twin.batch
        found = torch.autograd.grad(loss, [x, *owned])
        if owned:
            twin.to_coordinator("tail_gradient", name, twin.tail, found[1:], rows)
        back(twin, name, before, found[0], rows)


def at_the_host(twin, y, before):
    """Owners send labels; the host of the loss gathers the logits."""
    labels = torch.full((twin.batch,), -1)
    for name, rows in twin.rows.items():
        if name == twin.scorer:
            labels[rows] = y[rows]
        else:
            twin.mail.send("labels", name, twin.scorer, twin.tail, None, y[rows], rows)
    for message in twin.mail.take(twin.scorer, "labels", twin.tail):
        labels[message.rows] = message.payload
    x = twin.gather(twin.scorer, before, "activation").requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(x, labels), [x])
    back(twin, twin.scorer, before, found, torch.arange(twin.batch))


def back(twin, name, before, gradient, rows):
    """To the makers of the last hosted layer, each its channels."""
    makers = twin.blocks(before)
    if twin.side == "input":
        makers = [Slice(makers[0].party, before, tuple(range(twin.channels[before])))]
    for block in makers:
        part = gradient[:, list(block.units)]
        if block.party != name:
            twin.mail.send("gradient", name, block.party, before, block.units, part, rows)
        else:
            twin.keep(name, before, block.units, part, rows)
