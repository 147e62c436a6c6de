"""Means over shadow models, and what counts as another look at the same image."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.membership.rmia import _share_beaten
from privbench.errors import UsageError
from privbench.toolkit.densities import deviations, log_ratio
from privbench.toolkit.evidence import Evidence, moved, variants
from privbench.toolkit.likelihoods import average_log_p, outside_log_p


def _said() -> Evidence:
    rng = torch.Generator().manual_seed(0)
    shadow = -torch.rand(6, 5, generator=rng, dtype=torch.float64)
    member = torch.rand(6, 5, generator=rng) < 0.5
    member[0], member[1] = True, False
    seen = -torch.rand(5, generator=rng, dtype=torch.float64)
    return Evidence(seen, seen, shadow, shadow, member)


def test_means_are_those_of_a_plain_loop() -> None:
    said, a = _said(), 0.3
    for record in range(5):
        every = [math.exp(float(p)) for p in said.shadow_log_p[:, record]]
        assert float(average_log_p(said.shadow_log_p)[record]) == pytest.approx(
            math.log(sum(every) / len(every))
        )
        out = [p for p, inside in zip(every, said.member[:, record], strict=True) if not inside]
        expected = ((1 + a) * sum(out) / len(out) + 1 - a) / 2
        assert float(outside_log_p(said, a)[record]) == pytest.approx(math.log(expected))


def test_nobody_can_speak_for_a_record_that_is_everywhere() -> None:
    said = _said()
    everywhere = Evidence(*(list(vars(said).values())[:4]), torch.ones_like(said.member))
    with pytest.raises(UsageError, match="every shadow model"):
        outside_log_p(everywhere, 0.3)
    with pytest.raises(UsageError, match="-1 to 1"):
        outside_log_p(said, 2.0)


def test_shares_are_those_of_pairwise_comparisons() -> None:
    rng = torch.Generator().manual_seed(1)
    ratio, others = torch.randn(70, generator=rng, dtype=torch.float64).split([30, 40])
    margin = math.log(2.0)
    slow = (ratio[:, None] - others >= margin).double().mean(dim=1)
    found = _share_beaten(ratio, others, margin)
    torch.testing.assert_close(found, slow, atol=2e-6, rtol=0)
    order = ratio.argsort()
    assert bool((found[order].diff() > 0).all())  # no ties


def test_tails_go_on_rising_where_a_density_falls() -> None:
    """Above both means, a density of members falls under that of others with the wider spread."""
    rng = torch.Generator().manual_seed(2)
    member = torch.arange(40)[:, None] < 20
    inside = 2 + 0.2 * torch.randn(40, 1, generator=rng, dtype=torch.float64)
    outside = 2 * torch.randn(40, 1, generator=rng, dtype=torch.float64)
    shadows = torch.where(member, inside, outside)
    far, near = torch.tensor([6.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    by_density = [float(log_ratio(at, shadows, member)) for at in (near, far)]
    by_tail = [float(log_ratio(at, shadows, member, convention="tail")) for at in (near, far)]
    assert by_density[1] < by_density[0]
    assert by_tail[1] > by_tail[0]
    low = deviations(-far, shadows[20:], convention="density")
    assert float(low) > 0 > float(deviations(-far, shadows[20:]))
    with pytest.raises(UsageError, match="density or tail"):
        log_ratio(near, shadows, member, convention="both")


def test_queries_are_mirrored_and_moved_images() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(moved(x, 0, 1)[0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 2.0]))
    assert torch.equal(moved(x, -1, 0)[0, 0, :, 0], torch.tensor([4.0, 8.0, 8.0]))
    found = variants(x, 10)
    assert len(found) == 10
    assert torch.equal(found[0], x) and torch.equal(found[1], x.flip(-1))
    assert all(not torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])
    for queries, record in ((11, x), (0, x), (2, torch.rand(3, 5))):
        with pytest.raises(UsageError, match="queries"):
            variants(record, queries)
