"""Labels from gradients: exact where the logits' gradient is known, by direction else, never silent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.inference.label_leak import LabelLeak
from attacks.inference.label_read_out import LabelReadOut
from privbench.contract import (
    Layer,
    Message,
    Net,
    Own,
    Public,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
)
from privbench.errors import NotApplicable
from privbench.toolkit.labels import counts_without_model, label_counts, label_of_one, last_of
from privbench.toolkit.slopes import slopes_at, slopes_of_victims
from privbench.toolkit.updates import Observed

CLASSES, HIDDEN, ROWS = 4, 6, 24
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (8, HIDDEN, HIDDEN, CLASSES)}))
LAYERS = (
    Layer("linear0", "relu0", "stem", HIDDEN, (HIDDEN,), ("linear0.weight", "linear0.bias")),
    Layer("linear1", "relu1", "body", HIDDEN, (HIDDEN,), ("linear1.weight",), ("linear0",)),
    Layer("linear2", "linear2", "tail", CLASSES, (CLASSES,), ("linear2.weight",), ("linear1",)),
)
SEAT = Seat("device-1", "peer", ("device-1",))
LEAK = LabelLeak()


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


STATE = dict(NET.initialised(_rng()).weights or {})
MODULE = Net(NET.spec, STATE).module()
SAMPLES = Samples(
    torch.rand(ROWS, 8, generator=_rng(1)), torch.randint(CLASSES, (ROWS,), generator=_rng(2))
)
PUBLIC = Public(
    auxiliary=Samples(
        torch.rand(200, 8, generator=_rng(3)), torch.randint(CLASSES, (200,), generator=_rng(4))
    )
)
INDEX = torch.arange(ROWS)
VICTIMS = torch.stack([torch.zeros(ROWS, dtype=torch.int64), INDEX], dim=1)


def _view(messages: list[Message], **known: object) -> View:
    topology = Topology("slicenet", ("device-0", "device-1"), ("device-0",), NET, 2, 1, LAYERS)
    given: dict[str, object] = {"public": PUBLIC, "messages": tuple(messages), **known}
    return View(SEAT, topology, VICTIMS, **given)


def _sent(layer: Layer, units: tuple[int, ...] | None = None, scale: float = 1.0) -> Message:
    slopes = slopes_at(MODULE, layer, SAMPLES) / ROWS * scale
    payload = slopes if units is None else slopes[:, list(units)]
    return Message(
        0, "train", "device-0", "device-1", "gradient", layer.name, units, payload, INDEX
    )


def _hits(view: View) -> float:
    guess = LEAK.run(view, _rng())
    assert guess.groups is None
    return float((guess.labels == SAMPLES.y[guess.rows[:, 1]]).double().mean())


def _gradient(samples: Samples) -> dict[str, Tensor]:
    loss = F.cross_entropy(MODULE(samples.x), samples.y)
    names, tensors = zip(*MODULE.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, tensors), strict=True))


TAIL = Weights(0, "linear2", None, {n: STATE[n] for n in ("linear2.weight", "linear2.bias")})


def test_gradients_at_a_cut_are_those_of_each_record_alone() -> None:
    """The slow twin: one record after another, from that value on."""
    slopes = slopes_at(MODULE, LAYERS[0], SAMPLES)
    for i in range(4):
        value = MODULE.relu0(MODULE.linear0(SAMPLES.x[i : i + 1])).detach().requires_grad_()
        said = MODULE.linear2(MODULE.relu1(MODULE.linear1(value)))
        (one,) = torch.autograd.grad(F.cross_entropy(said, SAMPLES.y[i : i + 1]), value)
        assert torch.allclose(slopes[i], one[0], atol=1e-7)


def test_what_several_consumers_send_is_added_up() -> None:
    parts = [_sent(LAYERS[0], scale=0.25), _sent(LAYERS[0], scale=0.75)]
    (block,) = slopes_of_victims(_view(parts))
    assert torch.allclose(block.payload, slopes_at(MODULE, LAYERS[0], SAMPLES) / ROWS, atol=1e-7)


def test_labels_are_exact_where_the_last_layers_weights_are_known() -> None:
    assert _hits(_view([_sent(LAYERS[1])], weights=(TAIL,))) == 1.0
    assert _hits(_view([_sent(LAYERS[1], (1, 3, 4))], weights=(TAIL,))) == 1.0, "classes less one"


def test_labels_are_exact_where_the_logits_gradient_crosses() -> None:
    topology_end = replace(LAYERS[2], place="body", parameters=("linear2.weight",))
    loss = Layer("loss", "output", "tail", CLASSES, (CLASSES,), (), ("linear2",))
    view = _view([_sent(LAYERS[2])])
    layers = (*LAYERS[:2], topology_end, loss)
    assert _hits(replace(view, topology=replace(view.topology, layers=layers))) == 1.0


def test_whole_weights_name_directions_of_earlier_layers() -> None:
    weights = (Weights(0, "", None, STATE),)
    assert _hits(_view([_sent(LAYERS[0])], weights=weights)) > 0.9


def test_own_records_name_directions() -> None:
    own = Own(VICTIMS[:16], SAMPLES[:16])
    view = replace(_view([_sent(LAYERS[1])], own=own), victims=VICTIMS[16:])
    assert _hits(view) > 0.6


def test_directions_without_a_name_are_refused() -> None:
    with pytest.raises(NotApplicable, match="nothing that names their directions"):
        LEAK.run(_view([_sent(LAYERS[0])]), _rng())


def test_two_classes_pull_in_opposite_directions() -> None:
    few = Samples(torch.rand(30, 8), torch.tensor([0] * 24 + [1] * 6))
    slopes = torch.where(few.y[:ROWS, None] == 0, 1.0, -1.0) * torch.rand(ROWS, HIDDEN)
    slopes[18:] = -slopes[18:].abs()
    message = replace(_sent(LAYERS[0]), payload=slopes)
    guess = LEAK.run(_view([message], public=Public(auxiliary=few)), _rng())
    assert guess.labels.tolist() == [0] * 18 + [1] * 6


@pytest.mark.parametrize("kept", [("bias", "weight"), ("weight",), ("bias",)])
def test_one_row_is_exact(kept: tuple[str, ...]) -> None:
    for i in range(ROWS):
        told = {n: g for n, g in _gradient(SAMPLES[i : i + 1]).items() if n.split(".")[1] in kept}
        last = last_of(told, MODULE)
        assert last is not None and label_of_one(last) == SAMPLES.y[i]


@pytest.mark.parametrize("kept", [("bias", "weight"), ("weight",)])
def test_counts_of_a_batch_are_right_but_for_a_few(kept: tuple[str, ...]) -> None:
    told = {n: g for n, g in _gradient(SAMPLES).items() if n.split(".")[1] in kept}
    known = Observed(0, "device-0", INDEX, told, STATE, True)
    true = torch.bincount(SAMPLES.y, minlength=CLASSES)
    last = last_of(told, MODULE)
    assert last is not None
    blind = counts_without_model(last, ROWS, torch.full((CLASSES,), 0.25).double())
    assert int(blind.sum()) == ROWS
    if last.bias is not None:  # of the weight alone the scale is not known
        assert int((blind - true).abs().sum()) <= 4
    counts = label_counts(known, MODULE, PUBLIC.auxiliary, ROWS)
    assert counts is not None and int(counts.sum()) == ROWS
    assert int((counts - true).abs().sum()) <= 4
    assert label_counts(replace(known, mean=False), MODULE, PUBLIC.auxiliary, ROWS) is None


def test_an_update_is_one_group_with_weights_or_without() -> None:
    told = [
        Message(0, "train", "device-0", "coordinator", "tail_gradient", name, None, tensor, INDEX)
        for name, tensor in _gradient(SAMPLES).items()
        if name.startswith("linear2")
    ]
    coordinator = Seat("coordinator", "infrastructure", ("coordinator",))
    bare = replace(_view(told), seat=coordinator)
    for view in (bare, replace(bare, public=replace(PUBLIC, net=Net(NET.spec, STATE)))):
        guess = LEAK.run(view, _rng())
        assert guess.groups is not None and guess.groups.unique().tolist() == [0]
        found, true = (torch.bincount(y, minlength=CLASSES) for y in (guess.labels, SAMPLES.y))
        assert int((found - true).abs().sum()) <= 4


def test_labels_that_are_sent_are_read() -> None:
    mixed = torch.randperm(ROWS, generator=_rng(5))
    message = Message(
        0, "train", "device-0", "device-1", "labels", "linear2", None, SAMPLES.y[mixed], mixed
    )
    guess = LabelReadOut().run(_view([message]), _rng())
    assert torch.equal(guess.labels, SAMPLES.y) and torch.equal(guess.rows, VICTIMS)
    assert not len(LabelReadOut().run(_view([]), _rng()).labels)
