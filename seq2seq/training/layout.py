"""What TensorBoard shows of a run: curves by question, their descriptions, hyperparameters."""

import re
from typing import Any

from seq2seq.config.compose import flatten
from seq2seq.config.schema import Config
from seq2seq.run.provenance import without_paths


def _lines(*tags: str) -> list[Any]:
    """Return a chart of the curves whose names begin with one of these regular expressions."""
    return ["Multiline", list(tags)]


LAYOUT = {
    "1. Does it learn?": {
        "loss, nats per target token": _lines("train/loss$", "validation/loss$"),
        "validation BLEU": _lines("validation/bleu$"),
        "validation chrF": _lines("validation/chrf$"),
        "validation exact match": _lines("validation/exact_match$"),
        "validation character error rate": _lines("validation/character_error_rate$"),
        "validation symbol error rate": _lines("validation/symbol_error_rate$"),
        "validation BLEU by direction": _lines("bleu/"),
        "validation loss by source tokens": _lines("loss_by_length/"),
    },
    "2. Are the updates of a sound size?": {
        "gradient norm before clipping": _lines("train/grad_norm$"),
        "share of updates that were clipped": _lines("train/clip_rate$"),
        "exploded gradients": _lines("train/explosions$"),
        "|update| / |weights|": _lines("update_ratio/"),
        "learning rate": _lines("train/lr$"),
    },
    "3. Can the gates still move?": {
        "encoder: gates below 0.05 (low), above 0.95 (high)": _lines("gates/encoder_"),
        "decoder: gates below 0.05 (low), above 0.95 (high)": _lines("gates/decoder_"),
    },
    "4. Does it align?": {
        "entropy of attention, nats": _lines("attention/entropy$"),
        "the same as a share of log(source tokens)": _lines("attention/entropy_share$"),
    },
    "5. Is it as fast as it could be?": {
        "target tokens per second": _lines("train/tokens_per_second$"),
        "share of the time waiting for data": _lines("train/data_wait$"),
        "share of padding": _lines("train/padding$"),
    },
}

DESCRIPTIONS = {
    "train/loss": "Nats per target token, dropout on, mean since the last point.",
    "train/grad_norm": "Norm of the gradient before clipping, mean since the last point.",
    "train/clip_rate": "Share of updates clipped by trainer.clip_norm.",
    "train/explosions": "Updates since the last point whose gradient exploded.",
    "train/lr": "Learning rate.",
    "train/tokens_per_second": "Target tokens per second of training.",
    "train/data_wait": "Share of the time spent waiting for batches.",
    "train/padding": "Share of a batch that is padding.",
    "update_ratio/": "|update| / |weights| of a part of the model.",
    "gates/": "Share of gates below 0.05 (low) or above 0.95 (high), where they hardly learn.",
    "attention/entropy": "Entropy of a target token's attention, in nats.",
    "attention/entropy_share": "Entropy as a share of its maximum: near 1, nothing is aligned yet.",
    "validation/loss": "Nats per target token of the validation set.",
    "validation/": "Score of the validation set. Set Smoothing to 0 to see the last value.",
    "bleu/": "Validation BLEU of a direction. Set Smoothing to 0 to see the last value.",
    "chrf/": "Validation chrF of a direction. Set Smoothing to 0 to see the last value.",
    "loss_by_length/": "Nats per target token of the validation set, by source tokens.",
}
"""What a curve shows, by its tag or the beginning of its tag."""

SECTIONS = re.compile(
    "(seed|tokenizer|model|cell|encoder|decoder|attention|objective|optimizer|scheduler)\\b|trainer[.]"
    "(batch_|accumulate|normalize|clip_norm|label_smoothing|ema_decay|max_updates|precision)"
)
"""Settings that decide what is learnt; others are in the run's config, under Text."""


def description(tag: str) -> str:
    """Return what a curve shows."""
    return DESCRIPTIONS.get(tag) or next(
        (
            text
            for start, text in DESCRIPTIONS.items()
            if start[-1] == "/" and tag.startswith(start)
        ),
        "",
    )


def line_of(tag: str) -> str:
    """Return the name of a curve among those of its chart: `train`, `encoder`, `z_low`, `1-10`."""
    group, name = tag.split("/", 1)
    match group:
        case "train" | "validation":
            return group
        case "attention":
            return "train"
        case "gates":
            return name.split("_", 1)[-1]  # encoder and decoder have charts of their own
        case _:
            return name


def hyperparameters(cfg: Config) -> dict[str, int | float | str]:
    """Return the settings that matter of a run, without those that are not set."""
    return {
        key: value if type(value) in (int, float, str) else str(value).lower()
        for key, value in flatten(without_paths(cfg)).items()
        if SECTIONS.match(key) and value not in (None, [], {})
    }
