"""The two networks of He, Zhang, Lee 2019, trained once and kept.

Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
https://doi.org/10.1145/3359789.3359824; layers and their names are those of
https://github.com/zechenghe/Inverse_Collaborative_Inference. Theirs take normalised inputs; here the
first module normalises, so that inputs are in [0, 1] as everywhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from privbench.contract import Net, Recipe, Samples, Spec
from privbench.regimes.training import accuracy, train

KEPT = Path(__file__).parents[2] / "runs" / "golden"
"""Where trained networks lie between runs; remove the folder to train anew."""

MNIST = ((0.5,), (0.5,))  # mean, standard deviation a channel: [0, 1] becomes [-1, 1]
CIFAR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalise(nn.Module):
    """Subtract a mean and divide by a deviation, channel by channel."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The inputs in the network's own range."""
        return (x - self.mean) / self.deviation


def lenet() -> nn.Module:
    """Their LeNet-5: 8 and 16 unpadded 5x5 convolutions; 28x28 grey images."""
    return nn.Sequential(
        OrderedDict(
            normal=Normalise(*MNIST),
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


def cifar() -> nn.Module:
    """Their network for CIFAR-10: six 3x3 convolutions of 64 to 128 channels, two linear layers."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(normal=Normalise(*CIFAR))
    before = 3
    for block, channels in enumerate((64, 128, 128), start=1):
        for place in (1, 2):
            parts[f"conv{block}{place}"] = nn.Conv2d(before, channels, 3, padding=1)
            parts[f"ReLU{block}{place}"] = nn.ReLU()
            before = channels
        parts[f"pool{block}"] = nn.MaxPool2d(2)
    parts["flatten"] = nn.Flatten()
    parts["fc1"] = nn.Linear(2048, 512)
    parts["fc1act"] = nn.Sigmoid()
    parts["fc2"] = nn.Linear(512, 10)
    return nn.Sequential(parts)


def trained(name: str, samples: Samples, epochs: int) -> Net:
    """A network of this module, trained as theirs is, for fewer epochs and with a falling rate.

    Args:
        name: ``lenet`` or ``cifar``.
        samples: the official training set.
        epochs: over them; theirs are 50 or more.
    """
    net = Net(Spec(f"he_nets.{name}"))
    adam = Spec("torch.optim.Adam", {"lr": 1e-3, "eps": 1e-3, "amsgrad": True})
    recipe = Recipe(net, adam, epochs=epochs, batch=64, decay="linear")
    file = KEPT / f"he-{name}-{recipe.signature}.safetensors"
    if file.exists():
        return Net(net.spec, load_file(file))
    done = train(recipe, samples, torch.Generator().manual_seed(0))
    KEPT.mkdir(parents=True, exist_ok=True)
    save_file(dict(done.weights or {}), file)
    return done


def accurate(net: Net, samples: Samples) -> float:
    """Share of samples that the network labels rightly."""
    module = net.module()
    parts = samples.x.split(500), samples.y.split(500)
    return sum(accuracy(module, Samples(x, y)) * len(x) for x, y in zip(*parts, strict=True)) / len(
        samples
    )
