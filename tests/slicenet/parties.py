"""Those who take part in the twin: a mail that turns messages into bytes, and devices with their slices."""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F

from privbench.contract import Message, Slice, load_name
from privbench.wire.codec import decode, encode

ENCODED = 2  # steps whose messages go through bytes; later ones are copied, which is quicker


class Mail:
    """Delivers messages as bytes and keeps them for comparison."""

    def __init__(self):
        self.sent: list[Message] = []
        self.hidden: list[Message] = []  # under masks: bytes on the wire, that nobody can read
        self.boxes = defaultdict(list)
        self.step = 0

    def send(self, kind, sender, receiver, layer, units, payload, rows=None):
        assert sender != receiver
        where = {} if rows is None else {"rows": rows}
        payload = payload.detach().clone()
        message = Message(
            self.step, "train", sender, receiver, kind, layer, units, payload, **where
        )
        if self.step < ENCODED:
            message = decode(encode(message))
        self.sent.append(message)
        self.boxes[receiver].append(message)

    def take(self, receiver, kind, layer):
        box = self.boxes[receiver]
        found = [m for m in box if m.kind == kind and m.layer == layer]
        self.boxes[receiver] = [m for m in box if not (m.kind == kind and m.layer == layer)]
        return found


class Learner:
    """Parameters of one party and its own optimiser."""

    def __init__(self, optimizer):
        self.spec = optimizer
        self.tensors = {}

    def hold(self, key, tensor):
        self.tensors[key] = tensor.clone().requires_grad_()

    def ready(self):
        found = list(self.tensors.values())
        if found:
            self.optimizer = load_name(self.spec.target)(found, **self.spec.kwargs)

    def learn(self):
        if self.tensors:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def square(self):
        """Squared norm of all gradients of this party."""
        found = [t.grad.flatten() for t in self.tensors.values() if t.grad is not None]
        return torch.cat(found).square().sum().reshape(1)

    def scale(self, factor):
        for tensor in self.tensors.values():
            if tensor.grad is not None:
                tensor.grad.mul_(factor)

    def add(self, key, gradient):
        tensor = self.tensors[key]
        tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


class Device(Learner):
    """Owns samples, and hosts some blocks."""

    def __init__(self, name, optimizer):
        super().__init__(optimizer)
        self.name = name
        self.blocks: list[Slice] = []
        self.public = {}  # stem and tail, as last broadcast
        self.memory = {}  # of the step

    def of(self, layer):
        return [block for block in self.blocks if block.layer == layer]


def apply(weight, bias, x):
    """A layer's map from its weight: a convolution if the weight has four axes."""
    if weight.ndim == 4:
        return F.conv2d(x, weight, bias, padding=1)
    return F.linear(x.flatten(1), weight, bias)


def finish(weight, value):
    """What follows a layer that is not the last."""
    value = F.relu(value)
    return F.max_pool2d(value, 2) if weight.ndim == 4 else value
