"""Warm start: a new run takes weights and vocabularies from another, its origin (`init.run`).

They are copied when the run is made, weights to `init/` and vocabularies to their usual place, so
the origin is not needed later. Optimizer, counters and average start fresh.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seq2seq.config.compose import flatten, is_within, load_run_config
from seq2seq.config.schema import Config, all_symbols
from seq2seq.data.prepare import MAX_VOCABULARY_BYTES, TOKENIZERS, load_tokenizers
from seq2seq.decoding.pretrained import outline
from seq2seq.run.checkpoints import directory_of
from seq2seq.run.checksums import MANIFEST, entries_of, read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError
from seq2seq.run.models import named_runs
from seq2seq.run.naming import CONFIG
from seq2seq.run.provenance import without_directories
from seq2seq.training.checkpoint import AVERAGE, MODEL, load_weights, pack, selected
from seq2seq.training.weight_names import in_short, matching

log = logging.getLogger(__name__)

ORIGIN = "init"
"""The directory of a run that holds the weights taken from its origin."""

_PARTS = ("model", "cell", "encoder", "decoder", "attention")
_FREE = re.compile(
    r".*dropout|tokenizer\.(sampling|symbols)|model\.(init|backend)|cell\.forget_bias"
    r"|attention\.(inference|layer|head|soft_share|reinforce_weight|discount|entropy_weight)"
)
"""Settings that change neither the set of weights nor what a trained model computes."""


@dataclass(frozen=True)
class Origin:
    """What a new run takes from its origin."""

    record: Mapping[str, Any]  # for `run.json`: run, update and checksum
    vocabularies: Mapping[str, bytes]
    sizes: Sequence[int]  # of the vocabularies
    weights: Mapping[str, Tensor]
    notes: Sequence[tuple[int, str]]  # (level, message) for the log


def read_origin(cfg: Config) -> Origin | None:
    """Read the origin named by `init.run`, if any, with the usual checks of a run.

    Raises:
        ConfigError: the origin does not match this config.
        RunDirError: it is not a run, or is damaged.
    """
    if cfg.init.run is None:
        return None
    named = named_runs(cfg.init.run)
    if len(named) > 1:
        several = f"init.run={cfg.init.run!r} names {len(named)} runs"
        raise ConfigError("config", several, "Name one; RUN@last5 is the mean of five checkpoints.")
    run, selector = RunDir.open(named[0].path), named[0].selector
    its = load_run_config(run.checked(CONFIG))
    if other := _other_settings(cfg, its, ["tokenizer"]):
        raise ConfigError("config", other, "Use its settings: its vocabularies are taken over.")
    if lost := [symbol for symbol in all_symbols(its) if symbol not in all_symbols(cfg)]:
        unlike = f"init.run: {cfg.init.run} protects {lost[0]}, and this run does not"
        raise ConfigError(
            "config", unlike, "Give its tokenizer.symbols and data.placeholders, too."
        )
    if (other := _other_settings(cfg, its, _PARTS)) and cfg.init.parts is None:
        fix = "Give its settings, or name in init.parts what to take from it."
        raise ConfigError("config", other, fix)

    # Its weights, restricted to those that the new model takes.
    tokenizers = load_tokenizers(run, its)
    model, own = outline(its, tokenizers), outline(cfg, tokenizers)
    taken = _taken(cfg, model, own)
    update = load_weights(run, model, selector)
    weights = {name: p.detach() for name, p in model.named_parameters() if name in taken}
    rest = {name for name, _ in own.named_parameters()} - taken

    # The record for `run.json`, and notes for the log.
    updates = [update] if selector is None else selected(run, selector)
    checksums = {str(each): _checksum(run, each) for each in updates}
    name = without_directories(cfg.init.run)
    record = {"run": name, "update": update, "sha256": checksums[str(update)]}
    return Origin(
        record=record | ({"mean_of": checksums} if len(updates) > 1 else {}),
        vocabularies=read_directory(run.path(TOKENIZERS), MAX_VOCABULARY_BYTES),
        sizes=[*map(len, tokenizers)],
        weights=weights,
        notes=[
            (logging.INFO, f"weights of {name}, update {update:,}: {in_short(taken, rest)}"),
            (logging.INFO, f"weights drawn anew: {in_short(rest, taken)}"),
            *((logging.INFO, note) for note in [other] if note),
            *((logging.WARNING, note) for note in _other_text(cfg, its)),
        ],
    )


def keep(run: RunDir, origin: Origin | None) -> dict[str, Any]:
    """Copy an origin into a run that is being made; return its entry for `run.json`."""
    run.remove_directory(ORIGIN)  # left by an attempt with another origin
    if origin is None:
        return {}
    run.commit_directory(TOKENIZERS, origin.vocabularies, about={"taken": origin.sizes})
    run.commit_directory(ORIGIN, {MODEL: pack(origin.weights)}, about=origin.record)
    for level, note in origin.notes:
        log.log(level, "%s", note)
    return {"init": dict(origin.record)}


def _checksum(run: RunDir, update: int) -> str:
    """Return the checksum of the weights to decode with."""
    entries = entries_of(directory_of(run, update) / MANIFEST)
    return str(entries[AVERAGE if AVERAGE in entries else MODEL]["sha256"])


def _other_settings(cfg: Config, its: Config, groups: Sequence[str]) -> str | None:
    """Describe how two configs differ in some groups, ignoring `_FREE` settings; or None."""
    ours, others, unequal = flatten(cfg), flatten(its), []
    for group in groups:
        # Settings of different options cannot be compared.
        other = ours[f"{group}.name"] != others[f"{group}.name"]
        keys = [f"{group}.name"] if other else [key for key in others if is_within(key, [group])]
        unequal += [k for k in keys if ours.get(k) != others[k] and not _FREE.fullmatch(k)]
    if not unequal:
        return None
    there, here = (
        " ".join(f"{key.removesuffix('.name')}={_typed(values.get(key))}" for key in unequal)
        for values in (others, ours)
    )
    return f"init.run: {cfg.init.run} has {there}, not {here}"


def _typed(value: object) -> str:
    """Return a value as typed on a command line."""
    return json.dumps(value).strip('"')


def _taken(cfg: Config, its: nn.Module, own: nn.Module) -> set[str]:
    """Return the names of the weights to take.

    Raises:
        ConfigError: some of them are missing in one of the models, or differ in shape.
    """
    shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in (its, own)]
    names = {*shapes[0], *shapes[1]}
    if cfg.init.parts is not None:
        names = {n for model in (its, own) for n in matching(model, cfg.init.parts, "init.parts")}
    wrong = sorted(name for name in names if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        there, here = (has.get(wrong[0], "none") for has in shapes)
        parts = in_short(wrong, names - {*wrong})
        what = f"init.run: {cfg.init.run} has other {parts} ({wrong[0]}: {there}, not {here})"
        raise ConfigError("config", what, "Name in init.parts what to take from it.")
    return names


def _other_text(cfg: Config, its: Config) -> list[str]:
    """Return warnings if the origin was trained on other languages, or in the other order."""
    ours, others = (", ".join(map("-".join, c.data.directions)) for c in (cfg, its))
    notes = []
    if ours != others:
        notes.append(f"the vocabularies were learnt on {others}, and this run is {ours}")
    if (order := its.data.target_order) is not cfg.data.target_order:
        unlike = f"writes {order.value}, and this run {cfg.data.target_order.value}"
        notes.append(f"init.run: {cfg.init.run} {unlike}: its decoder has much to unlearn")
    return notes
