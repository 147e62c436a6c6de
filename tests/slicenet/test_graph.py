"""Networks as graphs of stages."""

import pytest
import torch
from crowds import Deals
from nets import Chain, Dense, Mobile, Opaque, Residual, Transformer
from torch import nn
from torch.nn import functional as F

from privbench.contract import Net, Samples, Spec
from privbench.errors import UsageError
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


@pytest.mark.parametrize("net", [Residual(), Residual(True), Mobile(), Dense(), Opaque()])
def test_any_network_is_a_graph_of_stages_with_all_its_tensors(net):
    shape = (1, 4, 4) if isinstance(net, Dense | Opaque) else (1, 8, 8)
    graph = trace(net.eval(), shape)
    x = torch.rand(5, *shape)
    assert torch.equal(graph(x), net(x))
    names = [name for stage in graph.stages for name in stage.tensors]
    assert sorted(names) == sorted(net.state_dict())
    live = net.state_dict(keep_vars=True)
    assert all(t is live[name] for stage in graph.stages for name, t in stage.tensors.items())


def test_what_cannot_be_split_is_one_stage():
    stages = {stage.layer.name: stage for stage in trace(Transformer(), (1, 8, 8)).stages}
    assert [stage.sort for stage in stages.values()] == ["whole"] * 4 + ["layer"]
    assert stages["embed"].layer.place == "stem"
    attention = stages["blocks.0"]
    assert attention.border == attention.layer.channels == 4
    # torch's counter: attention's projections, scores and sums; the perceptron
    assert attention.flops == 2 * (4 * 6 * 6 * 4 + 2 * 4 * 4 * 6 + 2 * 4 * 6 * 12)
    opaque = [stage for stage in trace(Opaque(), (1, 4, 4)).stages if stage.sort == "whole"]
    assert [set(stage.tensors) for stage in opaque] == [
        {"gated.inner.weight", "gated.inner.bias"},
        {"twice.weight", "twice.bias"},
        {"shift"},
    ]


def test_joins_concatenations_and_branches():
    stages = {stage.layer.name: stage for stage in trace(Mobile(), (1, 8, 8)).stages}
    (operand,) = stages["point"].operands
    assert [(s.source, s.channels) for s in operand.strands] == [("deep", 6), ("grouped", 8)]
    assert stages["deep"].layer.cut == "relu"  # batch norm and activation travel with the channels
    assert stages["hidden"].operands[0].strands[0].width == 4
    dense = {stage.layer.name: stage.layer for stage in trace(Dense(), (1, 4, 4)).stages}
    assert dense["d"].inputs == ("mul", "c", "a") and dense["tanh"].inputs == ("a", "b")


class Said(nn.Module):
    """A forward pass that is wrong for a crowd in one way."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        if self.way == "raw":
            return self.c(x + self.b(self.a(x)))
        if self.way == "branch":
            return self.c(self.b(self.a(x)) if x.sum() > 0 else x)
        if self.way == "overwritten":
            x = self.a(x)
            y = self.b(x.relu_())
            return self.c(y + x.mul_(2.0))
        if self.way == "rows":
            return self.c(self.b(self.a(x)).reshape(1, -1).reshape(-1, 4)[:2])
        if self.way == "tail":
            return self.norm(self.c(torch.relu(self.b(self.a(x)))))
        if self.way == "two":
            return self.c(self.b(self.a(x))), x
        return self.c(torch.relu(self.b(self.norm(self.a(x)))))


@pytest.mark.parametrize(
    "way, words",
    [
        ("raw", r"'add' works on the samples themselves.*regime\.stem=2"),
        ("branch", "cannot be traced"),
        ("overwritten", r"overwrites a value.*write x = x \+ y"),
        ("rows", "no tensor with a row for each sample"),
        ("tail", r"batch norm behind 'c', in the tail.*GroupNorm"),
        ("stem", r"batch norm behind 'a', in the stem.*not be those of the whole batch.*GroupNorm"),
        ("two", "more than one value"),
    ],
)
def test_what_a_crowd_cannot_train_is_refused_with_what_to_do(way, words):
    with pytest.raises(UsageError, match=words):
        trace(Said(way), (4,))


def test_too_few_layers_no_stem_and_samples_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"at least 3 layers.*this one has 2; choose"):
        trace(Mlp(widths=(4, 3, 2)), (4,))
    with pytest.raises(UsageError, match="stem=0"):
        trace(Mlp(), (1, 8, 8), stem=0)
    with pytest.raises(UsageError, match=r"does not run on 2 samples of shape \(1, 9, 9\)"):
        trace(Mlp(), (1, 9, 9))
