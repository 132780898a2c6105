"""What the page says of a run, and its engine."""

from pathlib import Path

from seq2seq.play.answers import Answers, Question
from seq2seq.play.engine import Engine
from seq2seq.play.server import Player
from seq2seq.run.errors import printable


def player(name: str, answers: Answers) -> Player:
    """Return a run for the page: its name is the end of its path."""
    data, cfg = answers.model.config.data, answers.cfg
    languages = [*dict.fromkeys(target for _, target in data.directions)]
    about = {
        "name": printable(" + ".join(Path(part).name for part in name.split("+"))),
        "shown": answers.model.shown,
        "layers": answers.maps,
        "canForce": answers.can_force,
        "canChange": answers.can_force and answers.can_change,
        "languages": languages if len(languages) > 1 else [],
        "language": answers.language,
        "source": data.source_language,
        "search": f"beam {cfg.beam_size}",
    }
    kinds = {
        "quick": answers.quick,
        "full": answers.full,
        "alternatives": answers.alternatives,
        "intervene": answers.alternatives,
    }
    # The draws of a sample depend on its place in a batch.
    most = 1 if cfg.sample else cfg.batch_sentences
    return Player(about, Engine[Question](kinds, most))
