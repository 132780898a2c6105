"""The layout of TensorBoard's "Custom Scalars" page: the curves of a run, grouped by question."""

from typing import Any


def _lines(*tags: str) -> list[Any]:
    """Return a chart of the curves whose names begin with one of these regular expressions."""
    return ["Multiline", list(tags)]


LAYOUT = {
    "1. Does it learn?": {
        "loss, nats per target token": _lines("train/loss$", "validation/loss$"),
        "validation BLEU and chrF": _lines("validation/bleu$", "validation/chrf$"),
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
