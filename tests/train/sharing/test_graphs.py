"""Recordings: parameters of their own over the trained ones' memory. Passes: see test_forward."""

import pytest

from train.sharing.graphs import own_parameters


def test_own_parameters_get_the_gradients_without_waking_the_hooks_of_the_trained_weights() -> None:
    import torch

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
