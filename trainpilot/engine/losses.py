"""How a prediction is compared with its target, and how noise levels are weighted. Used by trainer and families.

Everything stays on the device and in float32; SNR is alpha^2 / sigma^2 of the levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainpilot.config.schema import Loss
from trainpilot.families.protocol import Levels

SNR_CEILING = 1000.0  # of the weightings that divide by the SNR, as in sd-scripts
SNR_FLOOR = 1e-4  # keeps 1 / SNR finite where zero_terminal_snr makes the last step pure noise


def per_sample_loss(
    prediction: Tensor, target: Tensor, loss: Loss, levels: Levels, mask: Tensor | None = None
) -> Tensor:
    """[B] float32: the mean distance of every sample. mask: [B,1,h,w] weights in 0..1 of the places of a latent.

    huber is 2c(sqrt(d^2 + c^2) - c), smooth_l1 is 2(sqrt(d^2 + c^2) - c). A mask scales, it does not renormalise:
    a sample of which little is trained counts for little.
    """
    difference = prediction.float() - target.float()
    squared = difference * difference
    if loss.type == "l2":
        distance = squared
    else:
        c = huber_scale(loss, levels).view(-1, *[1] * (difference.dim() - 1))
        distance = 2 * (torch.sqrt(squared + c * c) - c)
        if loss.type == "huber":
            distance = c * distance
    if mask is not None:
        distance = distance * mask.float()
    return distance.flatten(1).mean(1)


def huber_scale(loss: Loss, levels: Levels) -> Tensor:
    """[B] c of the Huber losses.

    snr: (1 - c0) / (1 + sigma/alpha)^2 + c0, large where there is little noise; exponential: c0^(t/1000).
    """
    c0 = loss.huber_c
    if loss.huber_schedule == "snr":
        # alpha / (alpha + sigma) is 1 / (1 + sigma/alpha) without dividing by an alpha of zero
        return (1 - c0) * (levels.alpha / (levels.alpha + levels.sigma)) ** 2 + c0
    if loss.huber_schedule == "exponential":
        share = levels.time.float() if levels.time.is_floating_point() else levels.time.float() / 1000
        return c0**share
    return torch.full_like(levels.alpha, c0)


def snr_weights(prediction: str, levels: Levels, loss: Loss) -> Tensor:
    """[B] weights of noise ("epsilon") and "v_prediction" losses; the product of the options that are on.

    min-SNR (Hang et al., arXiv 2303.09556): min(SNR, g) / SNR, for v min(SNR, g) / (SNR + 1).
    debiased (Yu et al., arXiv 2310.08442): 1 / sqrt(S), for v 1 / (S + 1); S is the SNR within its bounds.
    scale_v_like_noise, v only: S / (S + 1). v_like_weight w, noise only: 1 + w (S + 1) / S.
    """
    weights = torch.ones_like(levels.alpha)
    exact = (levels.alpha / levels.sigma) ** 2
    bounded = exact.clamp(SNR_FLOOR, SNR_CEILING)
    is_v = prediction == "v_prediction"
    if loss.min_snr_gamma:
        gamma = loss.min_snr_gamma
        weights = weights * (exact.clamp(max=gamma) / (exact + 1) if is_v else (gamma / exact).clamp(max=1))
    if is_v and loss.scale_v_like_noise:
        weights = weights * bounded / (bounded + 1)
    if not is_v and loss.v_like_weight:
        weights = weights * (1 + loss.v_like_weight * (bounded + 1) / bounded)
    if loss.debiased:
        weights = weights * (1 / (bounded + 1) if is_v else bounded.rsqrt())
    return weights
