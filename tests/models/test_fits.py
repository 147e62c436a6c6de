"""Networks that do not fit the records are refused with what to type, and nothing random is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privbench.contract import Net, Spec
from privbench.errors import PluginError, UsageError
from privbench.models.described import as_net
from privbench.models.fits import check_fits
from privbench.models.mlp import Mlp


class Fussy(nn.Module):
    """Its constructor or its forward pass goes wrong, or it answers oddly."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        if fault == "init":
            raise RuntimeError("no such\nlayer")
        self.fault = fault
        self.inner = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> object:
        """Three numbers a record, or what the fault says."""
        if self.fault == "forward":
            raise IndexError("list index out of range")
        torch.rand(1)  # a network that draws, even in eval mode
        out = self.inner(x)
        return {"tuple": (out, out), "flat": out.flatten()}.get(self.fault, out)


def _mlp(*widths: int) -> Net:
    return Net(Spec("privbench.models.mlp.Mlp", {"widths": list(widths)} if widths else {}))


def _fussy(fault: str = "") -> Net:
    return Net(Spec(f"{__name__}.Fussy", {"fault": fault}))


def test_what_fits_passes_and_draws_nothing() -> None:
    parts = as_net(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    before = torch.get_rng_state()
    check_fits(_mlp(), (1, 8, 8), 10)
    check_fits(_mlp(64, 12), (64,), 10)  # a class more than the labels name
    check_fits(_fussy(), (4,), 3)
    check_fits(parts, (2, 2), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (_mlp(), (20,), r"record of shape \(20,\) .*type model.widths=\[20,128,64,32,10\]"),
        (_mlp(8, 6, 10), (1, 4, 4), r"type model.widths=\[16,6,10\]"),
        (_mlp(20, 30, 2), (20,), r"2 outputs, and the records have 10 .*widths=\[20,30,10\]"),
        (_fussy(), (4,), r"Fussy has 3 outputs.*an input of \(4,\) and 10 outputs"),
        (_fussy("init"), (4,), r"Fussy with .*raised RuntimeError: no such layer; mend its __init__"),
        (_fussy("forward"), (4,), r"IndexError: list index out of range"),
        (_fussy("tuple"), (4,), r"by a tuple; expected a tensor of shape \(1, 10\)"),
        (_fussy("flat"), (4,), r"by \(3,\); expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_what_to_type(
    net: Net, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_fits(net, shape, 10)


def test_what_is_no_network_stays_the_plug_ins_fault() -> None:
    with pytest.raises(PluginError, match=r"must give a torch.nn.Module"):
        check_fits(Net(Spec("torch.zeros", {"size": [2]})), (4,), 2)


@pytest.mark.parametrize("widths", [64, [64], [64, 0], [64, 10.0], "64,10", [64, True]])
def test_widths_that_are_none_are_refused(widths: object) -> None:
    with pytest.raises(UsageError, match=r"model.widths=.*list of at least two positive whole"):
        Mlp(widths=widths)


def test_a_module_that_cannot_be_built_anew_is_told_so() -> None:
    module = Fussy()
    module.fault = "init"
    with pytest.raises(UsageError, match=r"cannot be rebuilt.*no such"):
        as_net(module)


@pytest.mark.parametrize(
    ("target", "shape", "words"),
    [
        ("lenet.LeNet5", (3, 32, 32), r"type model.channels=3 model.size=32 model.classes=7"),
        ("lenet.LeNet5", (1, 8, 8), r"model.size=8; LeNet-5 takes images of 28 or 32"),
        ("alexnet.AlexNet", (1, 8, 8), r"type model.channels=1 model.size=8 model.classes=7"),
        ("resnet.ResNet", (3, 28, 28), r"type model.channels=3 model.size=28 model.classes=7"),
        (
            "resnet.ResNet",
            (1, 112, 92),
            r"square images .*type model=mlp model.widths=\[10304,128,7\]",
        ),
        ("transformer.Transformer", (108,), r"square images .*model.widths=\[108,128,7\]"),
        ("transformer.Transformer", (1, 30, 30), r"model.size=30 is no multiple .*model.patch=3"),
    ],
)
def test_networks_for_images_are_told_the_three_words_that_fit(
    target: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_fits(Net(Spec(f"privbench.models.{target}")), shape, 7)


def test_networks_for_images_with_too_few_outputs_are_told_so() -> None:
    net = Net(Spec("privbench.models.alexnet.AlexNet", {"classes": 2, "size": 8, "widths": [4, 4]}))
    with pytest.raises(UsageError, match=r"2 outputs.*7 classes; type .*model.classes=7"):
        check_fits(net, (3, 8, 8), 7)
