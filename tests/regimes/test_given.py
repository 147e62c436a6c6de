"""Models trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from privbench.contract import Net
from privbench.data.population import Population
from privbench.errors import DataError, StorageError, UsageError
from privbench.regimes.given import Given
from privbench.wire.wire import Wire


def given(regime: Given, net: Net, population: Population) -> Net:
    return regime.train(net, population, Wire(), torch.Generator(), "cpu").net


@pytest.fixture
def population(population: Population) -> Population:
    """The data say who is a member."""
    return replace(population, told=True)


@pytest.fixture
def trained(net: Net) -> Net:
    return net.initialised(torch.Generator().manual_seed(1))


def test_weights_come_from_the_net_or_a_file(
    net: Net, trained: Net, population: Population, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(dict(trained.weights), path)
    for found in (
        given(Given(), trained, population),
        given(Given(weights=str(path)), net, population),
    ):
        assert all(torch.equal(found.weights[k], trained.weights[k]) for k in trained.weights)


def test_shadows_do_not_start_from_the_trained_weights(
    trained: Net, population: Population
) -> None:
    result = Given().train(trained, population, Wire(), torch.Generator(), "cpu")
    assert result.recipe.net.weights is None


def test_a_pickle_is_refused_with_the_line_that_converts_it(
    net: Net, population: Population
) -> None:
    with pytest.raises(UsageError, match=r"weights_only=True.*'net\.safetensors'"):
        given(Given(weights="net.pt"), net, population)


def test_members_that_were_drawn_by_seed_did_not_train_it(
    trained: Net, population: Population
) -> None:
    with pytest.raises(UsageError, match=r"key 'split' to the \.npz.*members=\(x, y\)"):
        given(Given(), trained, replace(population, told=False))


def test_what_cannot_be_used_says_so(
    net: Net, trained: Net, population: Population, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"regime.weights"):
        given(Given(), net, population)
    with pytest.raises(StorageError, match="nowhere"):
        given(Given(weights="nowhere.safetensors"), net, population)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(StorageError, match="broken"):
        given(Given(weights=str(broken)), net, population)
    alien = tmp_path / "alien.safetensors"
    save_file({"weight": torch.zeros(3)}, alien)
    with pytest.raises(
        UsageError, match=r"alien.safetensors do not fit .* no linear0.weight.*model="
    ):
        given(Given(weights=str(alien)), net, population)
    wider = {name: torch.cat([tensor, tensor]) for name, tensor in trained.weights.items()}
    with pytest.raises(UsageError, match=r"weights do not fit .*in place of"):
        given(Given(), replace(trained, weights=wider), population)
    wild = {name: tensor / 0 for name, tensor in trained.weights.items()}
    with pytest.raises(DataError, match=r"weights: NaN or infinite values in 'linear0.weight'"):
        given(Given(), replace(trained, weights=wild), population)
