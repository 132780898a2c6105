"""What goes along with a model in the format of another program: vocabularies and a description."""

from typing import Any

from seq2seq.config.compose import load_run_config
from seq2seq.config.schema import Backend, Config, TargetOrder
from seq2seq.data.prepare import TOKENIZERS
from seq2seq.data.subword_vocabulary import SentencePieceTokenizer
from seq2seq.data.tags import tag_ids
from seq2seq.data.tokenizer import EOS, PAD, UNK, RightToLeft, Tokenizer
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translate import search_rules
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.models import NamedRun

DESCRIPTION = "export.json"


class Bundle:
    """A run to export, its model in reference torch on the CPU.

    Attributes:
        model: The model; the weights are those that the run's name selects.
        special: What a decoder elsewhere would get wrong in silence, such as tags; None if nothing.
    """

    def __init__(self, named: NamedRun) -> None:
        self._run = RunDir.open(named.path)
        cfg = load_run_config(self._run.checked("config.yaml"))
        cfg.model.backend, cfg.device = Backend.reference, "cpu"
        self.pretrained = Pretrained(self._run, cfg, named.selector)
        assert isinstance(self.pretrained.model, EncoderDecoder)
        self.model = self.pretrained.model
        source, target = self.pretrained.tokenizers
        self.target = target.left_to_right if isinstance(target, RightToLeft) else target
        self.special = special(cfg, source, self.target)

    def write(self, out: RunDir, about: dict[str, Any]) -> None:
        """Write the vocabularies and the description, with entries of the format's own."""
        files = read_directory(self._run.path(TOKENIZERS))
        for name, data in files.items():
            out.write(name, data)
        out.write_json(DESCRIPTION, self._description([*files]) | about)

    def _description(self, files: list[str]) -> dict[str, Any]:
        cfg, (source, _) = self.pretrained.config, self.pretrained.tokenizers
        tags = cfg.data.tags
        rules = search_rules(cfg.decode)
        limits = {name: getattr(rules, name) for name in ("min_ratio", "max_ratio", "extra_steps")}
        forbidden = [*rules.forbidden, *(tag_ids(tags, self.target).values() if tags else ())]
        return {
            "format": 1,
            "name": cfg.name,
            "update": self.pretrained.update,
            "directions": cfg.data.directions,
            "tags": tag_ids(tags, source) if tags else {},
            "vocabularies": sorted(
                name for name in files if name.startswith(("source.", "target."))
            ),
            "special": {"pad": PAD, "unk": UNK, "eos": EOS},
            "target_order": cfg.data.target_order.name,
            # Before SentencePiece: whether to apply NFC, and characters to replace; after it, back.
            "nfc": getattr(source, "composes", False),
            "replace": [
                {chr(k): v for k, v in getattr(source, "escapes", {}).items()},
                {v: chr(k) for k, v in getattr(self.target, "escapes", {}).items()},
            ],
            "decode": limits
            | {"forbidden": forbidden, "max_source_tokens": cfg.decode.max_source_tokens},
        }


def special(cfg: Config, source: Tokenizer, target: Tokenizer) -> str | None:
    """Return `Bundle.special` of a config and its vocabularies."""
    if cfg.data.target_order is not TargetOrder.left_to_right:
        return "it writes targets from right to left"
    if cfg.data.tags:
        return "tags select its target language"
    if cfg.data.placeholders:
        return "it carries placeholders over"
    if not all(isinstance(side, SentencePieceTokenizer) for side in (source, target)):
        return "its vocabularies are not SentencePiece's"
    return None
