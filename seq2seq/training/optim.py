"""Optimizer, learning rate and clipping."""

import math

import torch
from torch import Tensor, nn

from seq2seq.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    ConstantConfig,
    CosineConfig,
    DecayConfig,
    InverseSqrtConfig,
    PlateauConfig,
)


def build_optimizer(model: nn.Module, cfg: AdadeltaConfig | AdamConfig) -> torch.optim.Optimizer:
    """Build the update rule of a config."""
    match cfg:
        case AdadeltaConfig():
            return torch.optim.Adadelta(
                model.parameters(),
                lr=cfg.lr,
                rho=cfg.rho,
                eps=cfg.eps,
                weight_decay=cfg.weight_decay,
                foreach=True,
            )
        case AdamConfig():
            return torch.optim.AdamW(
                model.parameters(),
                lr=cfg.lr,
                betas=(cfg.beta1, cfg.beta2),
                eps=cfg.eps,
                weight_decay=cfg.weight_decay,
                fused=True,
            )


def rate_factor(
    cfg: ConstantConfig | PlateauConfig | DecayConfig,
    *,
    update: int,
    max_updates: int,
    reductions: int,
) -> float:
    """Return the share of the optimizer's rate at an update: a pure function, nothing to save.

    Args:
        cfg: The schedule.
        update: The update about to be made; the first is 1.
        max_updates: Where a falling schedule ends.
        reductions: How often the plateau rule has struck so far.
    """
    match cfg:
        case ConstantConfig():
            return 1.0
        case PlateauConfig():
            return max(cfg.min_factor, cfg.factor**reductions)
        case DecayConfig():
            if update <= cfg.warmup:
                return update / cfg.warmup
            return max(cfg.final_factor, _decayed(cfg, update, max_updates))


def _decayed(cfg: DecayConfig, update: int, max_updates: int) -> float:
    done = min(1.0, (update - cfg.warmup) / max(1, max_updates - cfg.warmup))
    match cfg:
        case InverseSqrtConfig():
            return math.sqrt(max(1, cfg.warmup) / update)
        case CosineConfig():
            return cfg.final_factor + (1 - cfg.final_factor) * (1 + math.cos(math.pi * done)) / 2
        case _:
            return 1 - (1 - cfg.final_factor) * done


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients to at most `max_norm` together; return the norm before.

    If it is not finite, neither is a gradient, and all are left as they are: one NaN would spread
    to every other.
    """
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    value = float(norm)
    if math.isfinite(value):
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
        return value
    largest = float(nn.utils.get_total_norm(grads, math.inf))
    return _clip_huge(grads, max_norm, largest) if math.isfinite(largest) else value


def _clip_huge(grads: list[Tensor], max_norm: float, largest: float) -> float:
    """Clip gradients whose squares overflow, in float32 those above 1e19."""
    torch._foreach_div_(grads, largest)
    relative = float(nn.utils.get_total_norm(grads))  # at least 1
    torch._foreach_mul_(grads, min(largest, max_norm / relative))
    return largest * relative
