"""Weights of a file into a network: what does not fit is said in one line."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], head: str) -> None:
    """Take over weights.

    Args:
        network: is changed.
        weights: of its ``state_dict``.
        head: what the network states, for the message.

    Raises:
        ValueError: weights of a network of another head or of other sizes; nothing has changed then.
    """
    here = network.state_dict()
    other = [name for name in [*here, *weights] if (name in here) != (name in weights)]
    if other:
        raise ValueError(
            f"the weights are of another network: {other[0]!r} is only in {'it' if other[0] in here else 'the file'}; "
            f"load the file with its own settings (load_agent, weights=)."
        )
    for name, value in here.items():
        if value.shape != weights[name].shape:
            raise ValueError(
                f"the weights are of another head or size: {name} is {_shape(weights[name])}, here (head={head}) "
                f"{_shape(value)}; load the file with its own settings (load_agent, weights=)."
            )
    network.load_state_dict(dict(weights))


def _shape(weights: Tensor) -> str:
    return " x ".join(str(size) for size in weights.shape) or "a number"
