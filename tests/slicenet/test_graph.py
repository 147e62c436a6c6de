"""Networks as chains."""

import pytest
import torch
from crowds import Deals
from nets import Chain
from torch import nn
from torch.nn import functional as F

from privbench.contract import Net, Samples, Spec
from privbench.models.mlp import Mlp
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.trace import trace
from privbench.wire.wire import Wire


class Written(nn.Module):
    """A forward pass in people's usual words."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.deep = nn.Linear(64, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.conv(x)))
        x = x.view(x.size(0), -1).relu_()
        x = self.drop(torch.relu(self.deep(x)))
        return F.log_softmax(self.last(x), dim=1)


@pytest.mark.parametrize(
    "module, shape",
    [(Mlp(), (1, 8, 8)), (Written(), (1, 8, 8)), (Chain(8, [3, 5], [6, 4]), (1, 8, 8))],
)
def test_stages_are_bit_identical_to_the_module_and_share_its_parameters(module, shape):
    module.eval()
    graph, x = trace(module, shape), torch.rand(7, *shape)
    assert torch.equal(graph(x.clone()), module(x.clone()))
    names = {name for layer in graph.layers for name in layer.parameters}
    assert names == set(dict(module.named_parameters()))
    mine = [id(p) for stage in graph.stages for p in stage.tensors.values()]
    assert sorted(mine) == sorted(id(p) for p in module.parameters())


def test_a_layer_is_cut_behind_what_travels_with_it():
    graph = trace(Written(), (1, 8, 8))
    stem, deep, last = graph.layers
    assert (stem.name, stem.cut, stem.place, stem.shape) == ("conv", "pool", "stem", (4, 4, 4))
    assert (deep.name, deep.cut, deep.place, deep.inputs) == ("deep", "drop", "body", ("conv",))
    assert (last.place, last.cut, last.channels) == ("tail", "log_softmax", 3)
    assert graph.stages[1].weight.shape[1] == 64 and graph.stages[1].flops == 2 * 64 * 8
    assert graph.stages[0].flops == 2 * 9 * 4 * 64


def test_tracing_draws_nothing_and_changes_nothing():
    module = Written().train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trace(module, (1, 8, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert module.training and module.drop.training


def test_two_stem_layers():
    graph = trace(Mlp(widths=(9, 8, 7, 6, 4)), (1, 3, 3), stem=2)
    assert [layer.place for layer in graph.layers] == ["stem", "stem", "body", "tail"]


@pytest.mark.parametrize("stem", [1, 2])
def test_dropout_and_deeper_stems_stay_bit_equal_to_centralized(stem):
    net = Net(Spec("nets.dropped", {}))
    rng = torch.Generator().manual_seed(4)
    population = Deals(
        Samples(torch.rand(40, 6, generator=rng), torch.randint(0, 3, (40,), generator=rng))
    )
    regime = SliceNet(crowd=Uniform(devices=4), epochs=3, batch=8, stem=stem, granularity=2)
    done = regime.train(net, population, Wire(), torch.Generator().manual_seed(2), "cpu")
    central = train(done.recipe, population.train, torch.Generator().manual_seed(2)).weights
    for name, tensor in central.items():
        assert torch.equal(done.net.weights[name], tensor)
