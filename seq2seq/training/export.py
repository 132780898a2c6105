"""Exports the part of a run that decoding needs to a directory of its own, a model to share.

The export is itself a run directory, without data, optimizer and logs, so every command that
decodes a run decodes it. Of the data config only the languages are kept; paths stay private.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seq2seq.config.compose import to_yaml
from seq2seq.config.schema import Config, InitConfig
from seq2seq.data.prepare import TOKENIZERS, load_tokenizers
from seq2seq.decoding.shortlist import copy_shortlist, shortlist_of
from seq2seq.run.checksums import read_directory, verify_directory
from seq2seq.run.directory import RunDir
from seq2seq.training.checkpoint import best_weights, origins

log = logging.getLogger(__name__)

MODEL = "model"


def export(run: RunDir, cfg: Config) -> Path:
    """Write the best weights of a run, averaged ones if it has them, with config and tokenizers.

    Returns the directory. If it already holds these weights, it is not rewritten.

    Raises:
        RunDirError: no checkpoint can be read.
        PlatformError: the export cannot be written; an older one stays untouched.
    """
    best, weights = best_weights(run)
    config = public_config(cfg)
    files = {"model.safetensors": weights, "config.yaml": config.encode()}
    name = f"checkpoints/{best.parent.name}"
    old = run.path(MODEL) / name
    if old.exists() and verify_directory(old) is None and read_directory(old) == files:
        return run.path(MODEL)
    with run.replace_tree(MODEL) as model:
        fill(model, config, read_directory(run.path(TOKENIZERS)), name, weights)
        if cfg.decode.shortlist is not None:
            shortlist_of(run, cfg, load_tokenizers(run, cfg))  # made if it is not there
        copy_shortlist(run, model)
    log.info("exported %s", run.path(MODEL))
    return run.path(MODEL)


def public_config(cfg: Config) -> str:
    """Return a config as YAML, without the corpora and paths of its run."""
    nowhere: dict[str, Any] = {"train": [], "validation": [], "test": []}
    corpora = [replace(corpus, **nowhere) for corpus in cfg.data.corpora]
    return to_yaml(
        replace(
            cfg,
            data=replace(cfg.data, root="", links=None, prepared=None, corpora=corpora, **nowhere),
            evaluate=replace(cfg.evaluate, heatmap_font=None),
            init=InitConfig(),
        )
    )


def fill(
    model: RunDir, config: str, tokenizers: Mapping[str, bytes], name: str, weights: bytes
) -> None:
    """Write what decoding needs into an empty directory; `name` is that of the checkpoint."""
    model.write("config.yaml", config)
    model.commit_directory(TOKENIZERS, tokenizers)
    files = {"model.safetensors": weights, "config.yaml": config.encode()}
    model.commit_directory(name, files, about=origins(model))
