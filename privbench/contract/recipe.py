"""Models and training as data: what can be handed to an attacker without handing over code."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.errors import PluginError, TrainingError, UsageError

Arguments = Mapping[str, Any]
"""Keyword arguments that are plain data: numbers, strings, lists and mappings of them."""


def load_name(name: str) -> Any:
    """The object that an import name (``package.module.Name``) stands for.

    Raises:
        PluginError: nothing is found there; the message holds the cause.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as cause:
        raise PluginError(
            f"cannot import '{name}': {cause}; expected package.module.Name that Python can import"
        ) from cause
    return found


@dataclass(frozen=True)
class Spec:
    """An object as data: its import name and its keyword arguments, which may be specs in turn."""

    target: str
    kwargs: Arguments = field(default_factory=dict)

    def build(self) -> Any:
        """Import the target and call it with the arguments; specs among these are built first."""
        return load_name(self.target)(**{name: _built(each) for name, each in self.kwargs.items()})


@dataclass(frozen=True, eq=False)
class Net:
    """A network as data.

    Args:
        spec: import name of an ``nn.Module`` class or factory, with its arguments.
        weights: its state dict, detached and on the CPU; None = not known or not yet drawn.
    """

    spec: Spec
    weights: Mapping[str, Tensor] | None = None

    def module(self) -> nn.Module:
        """A fresh module in eval mode; without weights, its values are those of the constructor.

        Raises:
            PluginError: the target is no ``nn.Module``, or the weights do not fit it.
        """
        with torch.random.fork_rng(devices=[]):
            module = self.spec.build()
        if not isinstance(module, nn.Module):
            raise PluginError(
                f"'{self.spec.target}' must give a torch.nn.Module, it gave {type(module).__name__}"
            )
        if self.weights is not None:
            try:
                module.load_state_dict(dict(self.weights))
            except RuntimeError as cause:
                raise PluginError(f"weights do not fit '{self.spec.target}': {cause}") from cause
        return module.eval()

    def initialised(self, rng: torch.Generator) -> Net:
        """The same network with fresh weights that depend on ``rng`` alone."""
        seed = int(torch.randint(2**62, (), generator=rng))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.spec.build()
        return self.holding(module)

    def holding(self, module: nn.Module) -> Net:
        """The same network with the weights that ``module`` has now (copied)."""
        weights = {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}
        return replace(self, weights=weights)


@dataclass(frozen=True)
class GaussianMechanism:
    """Per-sample clipping and Gaussian noise (Abadi et al. 2016, https://arxiv.org/abs/1607.00133).

    A step's gradient is ``(sum of clipped per-sample gradients + N(0, (noise * clip)^2)) / batch``,
    with ``batch`` the *expected* batch size and the batch drawn by Poisson sampling.
    """

    clip: float  # L2 norm of one sample's whole gradient
    noise: float  # noise multiplier, in units of clip


@dataclass(frozen=True)
class Federation:
    """Federated averaging (McMahan et al. 2017, https://arxiv.org/abs/1602.05629)."""

    clients: int
    rounds: int
    local_steps: int  # optimiser steps of each client in a round


@dataclass(frozen=True)
class Protocol:
    """What was spoken while a model was trained: the regime, and the defenses of its messages in order."""

    regime: Spec
    defenses: tuple[Spec, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All that decides how a model is trained, but for the records and the seed.

    ``epochs`` counts passes over the (client's) records; ``steps``, when set, stops earlier,
    after that many optimiser steps. ``learning`` names a LearningDefense; ``mechanism`` is what it
    comes down to, if that is clipping and noise (then shadow models can be trained together).
    ``protocol`` is there where the rest does not say what was learned, because messages were changed
    or devices failed on the way; who trains by it follows it alone, from ``net``.
    """

    net: Net
    optimizer: Spec
    epochs: int
    batch: int  # records a step (expected number, under Poisson sampling)
    loss: str = "cross_entropy"
    sampling: str = "shuffle"  # or "poisson"
    augmentation: Spec | None = None
    learning: Spec | None = None
    mechanism: GaussianMechanism | None = None
    federation: Federation | None = None
    steps: int | None = None
    decay: str = "constant"  # or "linear": the learning rate falls to 0 over the optimiser's steps
    clip: float | None = None  # most that the L2 norm of a step's whole gradient may be
    protocol: Protocol | None = None

    @property
    def signature(self) -> str:
        """Hash of everything above but weights: equal signatures mean equal recipes."""
        facts = asdict(replace(self, net=replace(self.net, weights=None)))
        if self.protocol is None:
            del facts["protocol"]  # as signatures were before there were protocols
        text = json.dumps(facts, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Samples:
    """Records: inputs ``(n, *shape)`` scaled to [0, 1], labels ``(n,)`` or None where withheld."""

    x: Float[Tensor, "n ..."]
    y: Int64[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Samples:
        return Samples(self.x[index], None if self.y is None else self.y[index])

    def to(self, device: torch.device | str) -> Samples:
        """The same records on another device."""
        return Samples(self.x.to(device), None if self.y is None else self.y.to(device))


Trainer = Callable[[Recipe, Samples, torch.Generator], Net]
"""Trains one model by a recipe. Handed around as its import name."""


def spec_of(thing: Any) -> Spec:
    """A frozen dataclass instance (attack, fit, defense, regime) as data, its parts likewise.

    Raises:
        PluginError: it is no dataclass, or its class cannot be imported by name.
    """
    kind = type(thing)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not is_dataclass(thing):
        raise PluginError(f"'{name}' must be a frozen dataclass, so that its settings are data")
    return Spec(name, {f.name: _data(getattr(thing, f.name)) for f in fields(thing) if f.init})


def _data(value: Any) -> Any:
    """A setting, with a spec in place of each dataclass instance in it."""
    if is_dataclass(value) and not isinstance(value, type):
        return spec_of(value)
    return _each(_data, value)


def _built(value: Any) -> Any:
    """The setting that ``_data`` was given."""
    return value.build() if isinstance(value, Spec) else _each(_built, value)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """A list, tuple or mapping with all that it holds changed; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: change(each) for key, each in value.items()}
    kind = type(value)
    return kind(map(change, value)) if kind in (list, tuple) else value


def optimizer_for(recipe: Recipe, tensors: Iterable[Tensor], steps: int) -> torch.optim.Optimizer:
    """The recipe's optimiser over some tensors; several parties may each run their own.

    Args:
        steps: that it will take in all: ``decay="linear"`` multiplies the learning rate of its n-th
            step, counted from 0, by ``1 - n / steps``.

    Raises:
        UsageError: an unknown decay.
    """
    made: torch.optim.Optimizer = load_name(recipe.optimizer.target)(
        tensors, **recipe.optimizer.kwargs
    )
    if recipe.decay == "linear":
        rates = [float(group["lr"]) for group in made.param_groups]
        taken = itertools.count()

        def slow_down(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            left = 1 - next(taken) / steps
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * left

        made.register_step_pre_hook(slow_down)
    elif recipe.decay != "constant":
        raise UsageError(f"regime.decay='{recipe.decay}'; expected constant or linear")
    return made


def steps_per_epoch(recipe: Recipe, records: int) -> int:
    """Optimiser steps of one pass over ``records`` records."""
    return max(1, -(-records // recipe.batch))


def batches(
    recipe: Recipe, records: int, rng: torch.Generator
) -> Iterator[Int64[Tensor, " batch"]]:
    """Positions of the records of each batch, without end: the order of visits is part of a recipe.

    ``shuffle``: every epoch a fresh permutation in chunks of ``batch`` (the last may be smaller).
    ``poisson``: each record enters each batch with probability ``batch / records`` (a batch may be
    empty). Draws from ``rng`` alone.

    Raises:
        UsageError: unknown sampling.
    """
    if recipe.sampling not in ("shuffle", "poisson"):
        raise UsageError(f"sampling='{recipe.sampling}' is unknown; expected shuffle or poisson")
    while True:
        if recipe.sampling == "shuffle":
            yield from torch.randperm(records, generator=rng).split(recipe.batch)
        else:
            chance = min(1.0, recipe.batch / records)
            yield (torch.rand(records, generator=rng) < chance).nonzero().flatten()


def child_rng(rng: torch.Generator, *names: object) -> torch.Generator:
    """A generator that depends on the seed of ``rng`` and on ``names``, not on draws made so far."""
    text = "/".join(str(part) for part in (rng.initial_seed(), *names))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)


def finite(net: Net) -> Net:
    """The net itself.

    Raises:
        TrainingError: a weight is NaN or infinite.
    """
    for name, tensor in (net.weights or {}).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"training gave NaN or infinite values in '{name}'; expected finite weights: "
                "lower the learning rate (regime.lr=...) or check the data for NaN"
            )
    return net
