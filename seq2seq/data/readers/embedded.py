"""The embedded corpus: English-French pairs made by a grammar, with gold links."""

from seq2seq.data.readers.place import Pairs, Place, reads
from seq2seq.run.errors import ConfigError


@reads("embedded", example="embedded")
def read_embedded(place: Place) -> Pairs:
    """Generate the pairs of a split.

    Raises:
        ConfigError: other languages are asked for.
    """
    from seq2seq.data.toy import generate

    if place.languages != ("en", "fr"):
        what = f"the embedded corpus is en-fr, not {'-'.join(place.languages)}"
        fix = "Set data.source_language=en data.target_language=fr, or name files."
        raise ConfigError("config", what, fix)
    cfg = place.cfg.grammar
    count = getattr(cfg, f"{place.split}_pairs")
    return generate(
        place.split, count, seed=cfg.seed, min_words=cfg.min_words, max_words=cfg.max_words
    )
