"""Optimizers and learning rate schedules, each built from its config class, and clipping.

Extensions register their own optimizers and schedules in the same way.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from seq2seq.config import schema
from seq2seq.config.registry import build, builds
from seq2seq.config.schema import Config
from seq2seq.data.tokenizer import PAD
from seq2seq.model import build_model
from seq2seq.run.errors import ConfigError
from seq2seq.training.weight_names import matching

log = logging.getLogger(__name__)

LR_FACTOR = "lr_factor"
"""Key of an optimizer group: its factor on the learning rate."""


def check_names(cfg: Config) -> None:
    """Check, before any work, that the model has the weights that `freeze` and `lr_factors` name.

    Raises:
        ConfigError: a pattern matches no weight, or all weights are frozen.
    """
    if not cfg.trainer.freeze and not cfg.trainer.lr_factors:
        return
    with torch.device("meta"):
        model = build_model(cfg, num_source=8, num_target=8, pad=PAD)  # any size has the same names
    freeze(model, cfg.trainer.freeze)
    build_optimizer(model, cfg.optimizer, cfg.trainer.lr_factors or {})


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the weights that match the patterns of `trainer.freeze`.

    Raises:
        ConfigError: a pattern matches no weight, or together they match all.
    """
    frozen = matching(model, patterns, "trainer.freeze")
    weights = dict(model.named_parameters())
    if frozen == weights.keys():
        raise ConfigError("config", "trainer.freeze leaves nothing to train", "Name fewer weights.")
    for name in frozen:
        weights[name].requires_grad_(False)


def build_optimizer(
    model: nn.Module, cfg: object, lr_factors: Mapping[str, float] = MappingProxyType({})
) -> torch.optim.Optimizer:
    """Build the optimizer of a config `cfg.optimizer` for the weights that are not frozen.

    Weights with equal `trainer.lr_factors` form a group that stores the factor.

    Raises:
        ConfigError: a pattern matches no weight.
    """
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = cast(torch.optim.Optimizer, build(cfg, weights.values()))
    factors = {weight: 1.0 for weight in weights.values()}
    for pattern, factor in lr_factors.items():
        for name in matching(model, [pattern], "trainer.lr_factors") & weights.keys():
            factors[weights[name]] *= factor
    if lr_factors:
        groups, optimizer.param_groups = optimizer.param_groups, []
        for group, factor in product(groups, dict.fromkeys(factors.values())):
            if own := [p for p in group["params"] if factors[p] == factor]:
                optimizer.add_param_group({**group, "params": own, LR_FACTOR: factor})
    return optimizer


@cache
def _lean(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return the class without the decorators that import torch's compiler, a second's work."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(optimizer.__name__, (optimizer,), methods)


@builds(schema.AdadeltaConfig)
def _adadelta(cfg: schema.AdadeltaConfig, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return _lean(torch.optim.Adadelta)(
        weights, lr=cfg.lr, rho=cfg.rho, eps=cfg.eps, weight_decay=cfg.weight_decay, foreach=True
    )


@builds(schema.AdamConfig)
def _adam(cfg: schema.AdamConfig, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    betas = (cfg.beta1, cfg.beta2)
    return _lean(torch.optim.AdamW)(
        weights, lr=cfg.lr, betas=betas, eps=cfg.eps, weight_decay=cfg.weight_decay, fused=True
    )


# Schedules: a factor on the optimizer's learning rate at each update. They have no saved state. ---


@dataclass(frozen=True)
class Position:
    """The progress of training, as far as schedules depend on it."""

    update: int  # the coming update; the first is 1
    max_updates: int  # the last update; below `trainer.max_updates` if `max_epochs` ends earlier
    reductions: int  # by the plateau rule so far


def rate_factor(cfg: object, *, update: int, max_updates: int, reductions: int) -> float:
    """Return the factor on the learning rate by the schedule `cfg.scheduler`."""
    return float(build(cfg, Position(update, max_updates, reductions)))


@builds(schema.ConstantConfig)
def _constant(cfg: schema.ConstantConfig, at: Position) -> float:
    return 1.0


@builds(schema.PlateauConfig)
def _plateau(cfg: schema.PlateauConfig, at: Position) -> float:
    return max(cfg.min_factor, cfg.factor**at.reductions)


@builds(schema.LinearConfig)
def _linear(cfg: schema.LinearConfig, at: Position) -> float:
    return _warmed_up(cfg, at, 1 - (1 - cfg.final_factor) * _done(cfg, at))


@builds(schema.CosineConfig)
def _cosine(cfg: schema.CosineConfig, at: Position) -> float:
    half_wave = (1 + math.cos(math.pi * _done(cfg, at))) / 2  # from 1 to 0
    return _warmed_up(cfg, at, cfg.final_factor + (1 - cfg.final_factor) * half_wave)


@builds(schema.InverseSqrtConfig)
def _inverse_sqrt(cfg: schema.InverseSqrtConfig, at: Position) -> float:
    return _warmed_up(cfg, at, math.sqrt(max(1, cfg.warmup) / at.update))


def _warmed_up(cfg: schema.DecayConfig, at: Position, factor: float) -> float:
    """Warm up linearly in `warmup` updates, then follow `factor`, not below `final_factor`."""
    return at.update / cfg.warmup if at.update <= cfg.warmup else max(cfg.final_factor, factor)


def _done(cfg: schema.DecayConfig, at: Position) -> float:
    """Return the completed share of the updates between the end of warmup and the last update."""
    return min(1.0, (at.update - cfg.warmup) / max(1, at.max_updates - cfg.warmup))


def warn_of_warmup(cfg: object, last_update: int) -> None:
    """Warn if training ends before the warmup of its schedule `cfg.scheduler`."""
    if isinstance(cfg, schema.DecayConfig) and cfg.warmup > last_update:
        text = (
            "scheduler.warmup=%d is longer than the training, %d updates: the rate ends at %.0f%%"
        )
        log.warning(text, cfg.warmup, last_update, 100 * last_update / cfg.warmup)


# Clipping ---------------------------------------------------------------------------------------


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients to a joint norm of at most `max_norm`; return the norm before.

    If a gradient is not finite, neither is the norm, and the gradients are left unchanged: scaling
    would spread one NaN to all of them.
    """
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    value = float(norm)  # waits for the device
    if math.isfinite(value):
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
        return value
    # The sum of squares may overflow where every gradient is finite.
    largest = float(nn.utils.get_total_norm(grads, math.inf))
    return _clip_huge(grads, max_norm, largest) if math.isfinite(largest) else value


def _clip_huge(grads: list[Tensor], max_norm: float, largest: float) -> float:
    """Clip gradients whose squares overflow: above 1e19 in float32."""
    torch._foreach_div_(grads, largest)
    relative = float(nn.utils.get_total_norm(grads))  # at least 1
    torch._foreach_mul_(grads, min(largest, max_norm / relative))
    return largest * relative
