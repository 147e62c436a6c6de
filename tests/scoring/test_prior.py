import numpy as np
import pytest
import torch

from privbench.contract import Samples
from privbench.scoring.prior import blind_images, membership_from_inputs, nearest
from privbench.scoring.statistics import auc


def test_blind_images_are_grey_the_mean_and_class_means():
    prior = Samples(torch.tensor([[0.0], [0.2], [1.0]]), torch.tensor([0, 0, 1]))
    found = {
        image.name: image.x.flatten().tolist()
        for image in blind_images(prior, torch.tensor([1, 0, 2]))
    }
    assert found["grey"] == [0.5, 0.5, 0.5]
    np.testing.assert_allclose(found["mean image"], [0.4] * 3, atol=1e-6)
    np.testing.assert_allclose(found["class mean"], [1.0, 0.1, 0.4], atol=1e-6)


def test_nearest_public_record():
    public = torch.tensor([[0.0], [0.5], [1.0]])
    assert nearest(torch.tensor([[0.4], [0.9]]), public).flatten().tolist() == [0.5, 1.0]


def test_inputs_alone_tell_nothing_on_a_random_split():
    """Cross-validated: what the classifier memorises does not count."""
    found = []
    for seed in range(10):
        rng = torch.Generator().manual_seed(seed)
        x, bits = torch.rand(200, 5, generator=rng), torch.arange(200) % 2 == 0
        scores = membership_from_inputs(Samples(x, torch.zeros(200, dtype=torch.int64)), bits, rng)
        found.append(auc(scores, bits.numpy()))
    assert abs(np.mean(found) - 0.5) < 0.05


def test_labels_count_as_known():
    rng = torch.Generator().manual_seed(0)
    bits = torch.arange(200) % 2 == 0
    scores = membership_from_inputs(
        Samples(torch.rand(200, 5, generator=rng), bits.long()), bits, rng
    )
    assert auc(scores, bits.numpy()) > 0.95


@pytest.mark.slow
def test_large_pools_are_sampled_evenly():
    rng = torch.Generator().manual_seed(0)
    bits = torch.arange(2400) % 4 == 0
    scores = membership_from_inputs(Samples(torch.rand(2400, 3, generator=rng)), bits, rng)
    known = np.isfinite(scores)
    assert known.sum() == 2000
    assert abs(bits.numpy()[known].mean() - 0.25) < 0.01
