"""Networks built from shapes fit the shapes, learn, and draw from their generator alone."""

from __future__ import annotations

import pytest
import torch

from privbench.toolkit.decoders import decoder, discriminator, drawn, encoder

INPUTS = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 9, 5), (14,), (1, 1, 6))
SEEN = ((16, 8, 8), (8, 24, 24), (16, 4, 4), (3, 33, 35), (10,), (4, 6), (7, 1, 1))


@pytest.mark.parametrize("shape", INPUTS, ids=str)
@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_what_goes_in_and_out_has_the_shapes_asked_for(shape, seen):
    x, y = torch.rand(1, *shape), torch.tensor([2])
    z = encoder(shape, seen, width=4)(x)
    assert z.shape == (1, *seen)
    for back in (decoder(seen, shape, 4)(z), decoder(seen, shape, 4, classes=3)(z, y)):
        assert back.shape == x.shape
        assert 0 <= float(back.detach().min()) <= float(back.detach().max()) <= 1


@pytest.mark.parametrize("shape", [*INPUTS, *SEEN], ids=str)
def test_a_judge_gives_a_logit_each(shape):
    x = torch.rand(2, *shape)
    assert discriminator(shape, 4)(x).shape == (2,)
    assert discriminator(shape, 4, classes=3)(x, torch.tensor([0, 2])).shape == (2,)


def test_weights_are_those_of_the_generator_and_nothing_else_is_drawn():
    before = torch.get_rng_state()
    made = [
        drawn(lambda: decoder((8, 7, 7), (1, 14, 14), 4), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    one, two, other = (next(net.parameters()) for net in made)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_map_stands_where_it_stood_in_the_image():
    """Unpadded convolutions and pooling cut and halve; the decoder's pixel looks at the same place."""
    net = drawn(lambda: decoder((16, 12, 12), (1, 28, 28), 4), torch.Generator().manual_seed(0))
    z = torch.rand(1, 16, 12, 12, requires_grad=True)
    (slope,) = torch.autograd.grad(net(z)[0, 0, 14, 14], z)
    rows = slope.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert min(rows) + max(rows) in (11, 12)  # about the middle of 0 to 11
