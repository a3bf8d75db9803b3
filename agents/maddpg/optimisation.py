"""Optimiser steps on batched networks, and the target networks that follow them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .compiled_products import clip
from .networks import BatchedMlp

# Added to gradient norms before dividing by them; the same number as in torch.nn.utils.clip_grad_norm_.
_NORM_FLOOR = 1e-6
_FUSED_ADAM = getattr(torch, "_fused_adam_", None)


class Trained:
    """Parameters that are trained together: their optimiser, clipped steps, and their target network.

    Args:
        module: its ``BatchedMlp`` parts carry all parameters.
        learning_rate: Adam's.
        max_norm: largest gradient norm of one network; 0: no clipping.
        target: a module like ``module`` that follows it, or None.
    """

    def __init__(self, module: nn.Module, learning_rate: float, max_norm: float, target: nn.Module | None) -> None:
        self.parameters: list[Tensor] = list(module.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, lr=learning_rate, fused=True)
        self.max_norm = max_norm
        # Collected once: walking through modules takes longer than the arithmetic on small networks.
        self._nets = [list(part.parameters()) for part in module.modules() if isinstance(part, BatchedMlp)]
        self._target: list[Tensor] | None = None if target is None else list(target.parameters())

    def descend(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """One step down the gradient of ``loss``; returns what ``step`` returns."""
        for parameter, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
            # The fused optimiser reads gradients in the memory order of the parameters, whatever their strides say.
            parameter.grad = gradient.contiguous()
        return self.step()

    @torch.no_grad()
    def step(self) -> Float[Tensor, ""]:
        """One step with the gradients that the parameters carry, which are scaled in place.

        Every network of a batch has its own gradient norm, so clipping one agent leaves the others as they are.

        Returns:
            The mean gradient norm before clipping.
        """
        norms = []
        for net in self._nets:
            gradients = [parameter.grad for parameter in net if parameter.grad is not None]
            compiled = clip(gradients, self.max_norm, _NORM_FLOOR)
            if compiled is not None:
                norms.append(compiled)
                continue
            layers = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
            norm = torch.linalg.vector_norm(layers, dim=0)
            norms.append(norm)
            if self.max_norm > 0:
                scale = (self.max_norm / (norm + _NORM_FLOOR)).clamp_max_(1.0)[:, None, None]
                torch._foreach_mul_(gradients, [scale] * len(gradients))
        self._adam()
        return torch.cat(norms).mean()

    def _adam(self) -> None:
        """``optimiser.step()`` by its own kernel on its own state: what it does around the kernel takes longer than the
        kernel on small networks."""
        states = [self.optimiser.state[parameter] for parameter in self.parameters]
        if _FUSED_ADAM is None or not all(states):  # the first step makes the state
            self.optimiser.step()
            return
        steps, means, squares = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        (group,) = self.optimiser.param_groups
        torch._foreach_add_(steps, 1)
        _FUSED_ADAM(
            self.parameters,
            [parameter.grad for parameter in self.parameters],
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )

    def soft_update(self, tau: float) -> None:
        """Move the target network by theta' <- theta' + tau (theta - theta'); without one nothing happens."""
        if self._target is not None:
            soft_update(self._target, self.parameters, tau)


@torch.no_grad()
def soft_update(target: list[Tensor], online: list[Tensor], tau: float) -> None:
    """Polyak step theta' <- theta' + tau (theta - theta') for every pair (Lillicrap et al. 2016, DDPG, alg. 1)."""
    torch._foreach_lerp_(target, online, tau)
