"""The network of UnSplit's MNIST experiments, trained as theirs is, and what its split server saw.

E. Erdogan, A. Küpçü, A. E. Çiçek: UnSplit, WPES 2022, https://arxiv.org/abs/2108.09033; layers and
their names are those of https://github.com/ege-erdogan/unsplit.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Slice,
    Spec,
    Topology,
    View,
    Weights,
)
from privbench.regimes.training import Training

KEPT = Path(__file__).parents[2] / "runs" / "golden"
"""Where recordings lie between runs; remove the folder to train anew."""

EPOCHS, BATCH, EVERY = 10, 64, 20  # every 20th server model is kept
NET = Net(Spec("split_nets.lenet"))
RECIPE = Recipe(
    NET, Spec("torch.optim.Adam", {"lr": 1e-3, "amsgrad": True}), epochs=EPOCHS, batch=BATCH
)
STEM = ("conv1", "conv2")  # split 2: both blocks of convolution, ReLU and pooling are the client's
BODY = ("fc1", "fc2", "fc3")


def lenet() -> nn.Module:
    """8 and 16 unpadded 5x5 convolutions, linear layers of 120 and 84; grey 28x28 images in [0, 1]."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 5),
            ReLU1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 5),
            ReLU2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(256, 120),
            fc1act=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            fc2act=nn.ReLU(),
            fc3=nn.Linear(84, 10),
        )
    )


def topology() -> Topology:
    """Client and server, cut behind the second block."""
    shapes = ((8, 12, 12), (16, 4, 4), (120,), (84,), (10,))
    cuts = ("pool1", "pool2", "fc1act", "fc2act", "fc3")
    names, places = (*STEM, *BODY), ("stem", "stem", "body", "body", "body")
    layers = tuple(
        Layer(name, cut, place, shape[0], shape, (f"{name}.weight", f"{name}.bias"), before)
        for name, cut, place, shape, before in zip(
            names, cuts, places, shapes, ((), *((name,) for name in names[:-1])), strict=True
        )
    )
    slices = tuple(
        Slice("split_server", layer.name, tuple(range(layer.channels)), whole=True)
        for layer in layers[2:]
    )
    return Topology("split", ("client", "split_server"), ("client",), NET, 0, 0, layers, slices)


def recorded(seed: int, samples: Samples) -> dict[int, dict[str, Tensor]]:
    """Weights in force at every 20th step, and ``rows``, who was in its batch.

    Args:
        samples: the official training set.
    """
    file = KEPT / f"split-lenet-{seed}.safetensors"
    if not file.exists():
        training = Training(RECIPE, samples, torch.Generator().manual_seed(seed))
        kept: dict[str, Tensor] = {}
        for step in training:
            if step.number % EVERY == 0:
                _keep(kept, step.number, training.learner.state(), step.positions)
        KEPT.mkdir(parents=True, exist_ok=True)
        save_file(kept, file)
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(file).items():
        step, _, what = name.partition("/")
        found.setdefault(int(step), {})[what] = tensor
    return {step: held for step, held in sorted(found.items()) if len(held["rows"])}


def _keep(kept: dict[str, Tensor], step: int, state: dict[str, Tensor], rows: Tensor) -> None:
    kept |= {f"{step}/{name}": tensor.clone() for name, tensor in state.items()}
    kept[f"{step}/rows"] = rows.clone()


def client(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the client sends."""
    module = lenet()
    module.load_state_dict({name: t for name, t in weights.items() if name != "rows"})
    with torch.no_grad():
        return torch.cat([module[: module_of("pool2")](part) for part in x.split(1000)])


def module_of(cut: str) -> int:
    """How many of the network's modules lie up to ``cut``."""
    return [name for name, _ in lenet().named_children()].index(cut) + 1


def server_view(
    steps: dict[int, dict[str, Tensor]],
    batches: dict[int, Samples],
    auxiliary: Samples,
    labels: bool,
) -> View:
    """What a split server knows that saw these batches cross at these steps; all rows are victims.

    Args:
        auxiliary: its public records; without labels for an attack that may use their shape alone.
        labels: is it sent the batches' labels?
    """
    messages: list[Message] = []
    for step, batch in batches.items():
        rows = torch.arange(len(batch))
        sent = {"activation": client(steps[step], batch.x)} | (
            {"labels": batch.y} if labels else {}
        )
        messages += [
            Message(step, "train", "client", "split_server", kind, STEM[-1], None, payload, rows)
            for kind, payload in sent.items()
        ]
    weights = tuple(
        Weights(
            step, name, None, {key: steps[step][key] for key in (f"{name}.weight", f"{name}.bias")}
        )
        for step in batches
        for name in BODY
    )
    victims = [
        torch.stack([torch.full((len(batch),), step), torch.arange(len(batch))], dim=1)
        for step, batch in batches.items()
    ]
    seat = Seat("split_server", "infrastructure", ("split_server",))
    public = Public(auxiliary=auxiliary, recipe=RECIPE)
    return View(seat, topology(), torch.cat(victims), tuple(messages), weights, public=public)
