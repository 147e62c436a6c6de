"""Distances of images against those of others."""

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from privbench.scoring.images import SMALLEST, ssim


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, SMALLEST, SMALLEST)], ids=str)
def test_structural_similarity_is_that_of_torchmetrics(shape):
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(6, *shape, generator=rng, dtype=torch.float64)
    y = (x + 0.3 * torch.randn(6, *shape, generator=rng, dtype=torch.float64)).clamp(0, 1)
    y[1], y[2], x[3], y[3] = x[1], 1 - x[2], 0.5, 0.5
    expected = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    torch.testing.assert_close(torch.as_tensor(ssim(x, y)), expected, rtol=1e-9, atol=1e-9)


def test_what_is_no_image_has_no_similarity():
    assert ssim(torch.rand(3, 5), torch.rand(3, 5)) is None
    assert ssim(torch.rand(3, 1, 10, 30), torch.rand(3, 1, 10, 30)) is None
