"""Does a network fit the records? Asked once, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from privbench.contract import Net, Spec
from privbench.errors import PrivbenchError, UsageError

MLP = "privbench.models.mlp.Mlp"
OF_IMAGES = (
    "privbench.models.alexnet.AlexNet",
    "privbench.models.lenet.LeNet5",
    "privbench.models.mlp_image.MlpImage",
    "privbench.models.resnet.ResNet",
    "privbench.models.transformer.Transformer",
)


def check_fits(net: Net, shape: Sequence[int], classes: int) -> None:
    """Build the network, and push one record of zeros through it in eval mode, on the CPU.

    The global random generators are left as they were.

    Args:
        net: as data, with weights or without.
        shape: of one record, for example ``samples.x.shape[1:]``.
        classes: that the labels name; more outputs than classes are no fault.

    Raises:
        UsageError: it cannot be built, it does not take such a record, or it has too few outputs;
            the message says what was needed and found, and what to type.
        PluginError: its target is no ``nn.Module``, or its weights do not fit it.

    Example::

        check_fits(Net(Spec("privbench.models.mlp.Mlp")), (1, 8, 8), 10)
    """
    module = _built(net)
    sizes = tuple(shape)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            out = module(torch.zeros(1, *sizes, dtype=_kind(module)))
    except (
        Exception
    ) as cause:  # whatever a user's network raises on records that it was not made for
        raise UsageError(
            f"model {net.spec.target} cannot take a record of shape {sizes} "
            f"({_words(cause)}); {_advice(net, sizes, classes)}"
        ) from cause
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 1:
        found = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UsageError(
            f"model {net.spec.target} answers one record of shape {sizes} by {found}; expected a "
            f"tensor of shape (1, {classes}): one number for each class"
        )
    if out.shape[1] < classes:
        raise UsageError(
            f"model {net.spec.target} has {out.shape[1]} outputs, and the records have {classes} "
            f"classes; {_advice(net, sizes, classes)}"
        )


def _built(net: Net) -> nn.Module:
    try:
        return net.module()
    except PrivbenchError:
        raise
    except Exception as cause:  # whatever a user's constructor raises
        raise UsageError(
            f"building model {net.spec.target} with {dict(net.spec.kwargs)} raised "
            f"{_words(cause)}; mend its __init__, or set its arguments by model.NAME=..."
        ) from cause


def _kind(module: nn.Module) -> torch.dtype:
    """Floating type of the network's numbers."""
    found = (each.dtype for each in module.parameters() if each.is_floating_point())
    return next(found, torch.get_default_dtype())


def _words(cause: Exception) -> str:
    """What an error says, in one line."""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"


def _advice(net: Net, sizes: tuple[int, ...], classes: int) -> str:
    if net.spec.target == MLP:
        inner = list(net.spec.kwargs.get("widths", (64, 128, 64, 32, 10)))[1:-1]
        return f"type {_widths(sizes, inner, classes)}"
    if net.spec.target in OF_IMAGES:
        return _advice_on_images(net.spec, sizes, classes)
    return f"give it an input of {sizes} and {classes} outputs, or choose data that it fits"


def _advice_on_images(spec: Spec, sizes: tuple[int, ...], classes: int) -> str:
    """What makes one of our networks for square images fit, if anything does."""
    if len(sizes) != 3 or sizes[1] != sizes[2]:
        return (
            "it takes square images (channels, size, size): choose such data, or type model=mlp "
            f"{_widths(sizes, [128], classes)}"
        )
    wanted = {"channels": sizes[0], "size": sizes[1], "classes": classes}
    try:
        Net(Spec(spec.target, {**spec.kwargs, **wanted})).module()
    except UsageError as cause:
        return str(cause)
    return "type " + " ".join(f"model.{name}={value}" for name, value in wanted.items())


def _widths(sizes: Sequence[int], inner: Sequence[int], classes: int) -> str:
    """The words that make a multilayer perceptron fit."""
    widths = ",".join(str(width) for width in (prod(sizes), *inner, classes))
    return f"model.widths=[{widths}]"
