"""LAMB is what its paper's formula says."""

from __future__ import annotations

import copy

import pytest
import torch

from squeezebert.training import lamb
from squeezebert.training.lamb import Lamb


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("devices, part", [(("cpu",), 1 << 17), (("cpu",), 4), ((), 4)])
def test_steps_follow_the_formula(decay, trust, devices, part, monkeypatch):
    """With whole weights, with weights in parts, the last of them shorter, and as on a GPU."""
    monkeypatch.setattr(lamb, "IN_PARTS", devices)
    monkeypatch.setattr(lamb, "PART", part)
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (11,), (3, 2, 2)]
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    parameters[0].data = weights[0].t().contiguous().t()  # not in one piece
    optimiser = Lamb(
        [{"params": parameters, "weight_decay": decay, "trust": trust}], lr=0.01, betas=(0.8, 0.95), eps=1e-6
    )
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    for step in range(1, 6):
        for place, parameter in enumerate(parameters):
            gradient = torch.randn(shapes[place], generator=generator, dtype=torch.float64)
            parameter.grad = gradient.clone()
            m, v = moments[place]
            m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
            moments[place] = m, v
            r = (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-6) + decay * weights[place]
            ratio = weights[place].norm() / r.norm() if trust else 1.0
            weights[place] = weights[place] - 0.01 * ratio * r
        optimiser.step()
        for parameter, weight in zip(parameters, weights, strict=True):
            assert torch.allclose(parameter.data, weight, rtol=1e-9, atol=1e-12)


def test_a_weight_of_zeros_and_a_gradient_of_zeros_have_a_ratio_of_one():
    weight, still = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    optimiser = Lamb([weight, still], lr=0.1, weight_decay=0.0)
    weight.grad, still.grad = torch.ones(3, 2), torch.zeros(3, 2)
    optimiser.step()
    assert torch.allclose(weight.data, torch.full((3, 2), -0.1), atol=1e-6)
    assert torch.equal(still.data, torch.ones(3, 2))


def test_its_state_is_saved_and_loaded():
    torch.manual_seed(0)
    one = torch.nn.Parameter(torch.randn(4, 3))
    other = torch.nn.Parameter(one.detach().clone())
    optimisers = [Lamb([one], lr=0.1), Lamb([other], lr=0.1)]
    gradients = torch.randn(6, 4, 3)
    for gradient in gradients[:3]:
        one.grad = gradient
        optimisers[0].step()
    optimisers[1].load_state_dict(copy.deepcopy(optimisers[0].state_dict()))
    other.data.copy_(one.data)
    for gradient in gradients[3:]:
        for parameter, optimiser in ((one, optimisers[0]), (other, optimisers[1])):
            parameter.grad = gradient.clone()
            optimiser.step()
    assert torch.equal(one.data, other.data)
