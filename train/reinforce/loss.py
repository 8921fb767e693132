"""What a step of reinforcement minimises, for pictures and for words.

Pictures (DiffusionNFT, Zheng et al., arXiv:2509.16117). A picture that the old policy drew has a
reward r in [0, 1] and is noised at a fresh time, as in flow matching. Around the old policy's
velocity the new one spans a positive and a negative policy,

    v+ = (1 - b) v_old + b v_theta        v- = (1 + b) v_old - b v_theta
    loss = r |v+ - v|^2 + (1 - r) |v- - v|^2

with the gradient 2b [(2r - 1) (v_old - v) + b (v_theta - v_old)]. So with r = 1 and b = 1 it is
flow matching; with r = 1/2 a pull toward the old policy alone, which is nothing where the two are
the same; with r = 0 a step away from the picture. Needs no likelihoods, no guidance and no steps of
the solver.

Words: the clipped ratio of PPO (Schulman et al., arXiv:1707.06347) with a group's advantages in
place of a critic's, and a penalty on the divergence from the old policy (GRPO, Shao et al.,
arXiv:2402.03300).

Letters: n tokens, Z numbers a latent token.
"""

from __future__ import annotations

import torch
from torch import Tensor


def image_loss(
    velocity: Tensor, old_velocity: Tensor, target: Tensor, reward: Tensor, *, beta: float
) -> Tensor:
    """DiffusionNFT's loss of each latent token, the mean over its numbers.

    Args:
        velocity: (n, Z) of the policy that learns.
        old_velocity: (n, Z) of the one that drew; no gradient flows into it.
        target: (n, Z) noise minus clean latents.
        reward: (n,) of the picture that a token is of, in [0, 1].
        beta: b, positive: the smaller, the farther a reward pushes.

    Returns:
        (n,) float32.
    """
    old, change = old_velocity.detach(), beta * (velocity - old_velocity.detach())
    positive = ((old + change - target) ** 2).mean(dim=-1)
    negative = ((old - change - target) ** 2).mean(dim=-1)
    return reward * positive + (1 - reward) * negative


def text_loss(
    ce: Tensor, old_ce: Tensor, advantage: Tensor, *, clip: float, kl_weight: float
) -> Tensor:
    """Minus the clipped gain of each token's likelihood, and its divergence from the old policy.

    Args:
        ce: (n,) minus the log-likelihoods, of the policy that learns.
        old_ce: (n,) of the one that wrote; no gradient flows into it.
        advantage: (n,) of the step that a token is of, of either sign.
        clip: How far a ratio of likelihoods may leave 1 and still gain.
        kl_weight: Of `text_divergence`.

    Returns:
        (n,) float32.
    """
    ratio = (old_ce.detach() - ce).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    gain = torch.minimum(ratio * advantage, clipped * advantage)
    return kl_weight * text_divergence(ce, old_ce) - gain


def text_divergence(ce: Tensor, old_ce: Tensor) -> Tensor:
    """(n,) estimates of KL(policy || old policy) at written tokens, none below 0.

    p_old / p - log(p_old / p) - 1: unbiased where the policy itself wrote, and of less variance
    than the log ratio (Schulman, "Approximating KL divergence", 2020).
    """
    log_ratio = ce - old_ce.detach()
    return log_ratio.exp() - log_ratio - 1
