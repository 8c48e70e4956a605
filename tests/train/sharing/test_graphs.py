"""Recordings: parameters of their own over the trained ones' memory. Passes: see test_forward."""

from types import SimpleNamespace

import pytest
import torch

from train.sharing.graphs import Pool, Replay, own_parameters
from train.sharing.layout import SharingError


def test_a_pass_whose_activations_are_gone_has_no_gradient() -> None:
    """Two passes in one memory: the first one's backward read the second one's activations."""
    graph = SimpleNamespace(replay=lambda: None)
    recorded = SimpleNamespace(
        pool=Pool(None),
        forward_graph=graph,
        backward_graph=graph,
        hidden=torch.zeros(2, 3),
        hidden_gradient=torch.zeros(2, 3),
        trained_gradients=[torch.ones(4)],
    )
    weight = torch.zeros(4, requires_grad=True)
    first = Replay.apply(recorded, weight).sum()
    second = Replay.apply(recorded, weight).sum()
    with pytest.raises(SharingError, match="two passes with gradients"):
        first.backward()
    second.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0] * 4


def test_own_parameters_get_the_gradients_without_waking_the_hooks_of_the_trained_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    trained = [model[0].weight, model[1].weight, model[1].bias]
    batch = torch.ones(1, 3)
    expected = torch.autograd.grad(model(batch).sum(), trained)
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda parameter: pytest.fail("a hook ran"))
    with pytest.raises(ZeroDivisionError), own_parameters(model) as (originals, substitutes):  # noqa: PT012
        model(batch).sum().backward()
        assert all(
            torch.equal(s.grad, gradient) for s, gradient in zip(substitutes, expected, strict=True)
        )
        assert all(a is b for a, b in zip(originals, trained, strict=True))
        assert [s.data_ptr() for s in substitutes] == [
            parameter.data_ptr() for parameter in trained
        ]
        raise ZeroDivisionError
    assert [id(p) for p in model.parameters() if p.requires_grad] == [id(p) for p in trained], (
        "put back"
    )
    assert all(parameter.grad is None for parameter in trained)
