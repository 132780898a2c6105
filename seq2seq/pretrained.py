"""A trained run as one object: raw text in, translations out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from seq2seq.config import load_run_config
from seq2seq.data.prepare import load_tokenizers
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.errors import PlatformError
from seq2seq.inference.translate import Translation, translate
from seq2seq.model import RNNSearch, build_model
from seq2seq.run import RunDir
from seq2seq.settings import Config, Device
from seq2seq.training.checkpoint import load_weights


class Pretrained:
    """A run's best model with its vocabularies and settings.

    Attributes:
        config: The run's own config with the given overrides.
        update: The update whose weights these are.
    """

    def __init__(self, run: RunDir, config: Config) -> None:
        self.config = config
        self.tokenizers = load_tokenizers(run, config)
        self.model = outline(config, self.tokenizers)
        self.update = load_weights(run, self.model)
        self.model.to(pick_device(config.device)).eval()

    def translate(self, sentences: Sequence[str]) -> list[Translation]:
        """Translate sentences: text, score and alignment of each, in order.

        model = seq2seq.load("outputs/quickstart/...")
        [t] = model.translate(["The small cat sleeps."])
        t.text, t.score, t.alignment
        """
        return list(self.stream(sentences))

    def stream(self, lines: Iterable[str]) -> Iterator[Translation]:
        """Translate lines as they come, in order."""
        return translate(self.model, self.tokenizers, lines, self.config.decode)


def load(run: str | Path, overrides: Sequence[str] = ()) -> Pretrained:
    """Load a trained run.

    Args:
        run: A run directory, as `train.py` prints it.
        overrides: `decode.beam_size=12` and the like; what the checkpoint fixes cannot change.

    Raises:
        RunDirError: no run, or a damaged one.
        ConfigError: an override is wrong.
    """
    folder = RunDir.open(Path(run))
    config = load_run_config(folder.path("config.yaml"), overrides)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return Pretrained(folder, config)


def new_model(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> RNNSearch:
    """Build the model of a config on its device, initialised from the run's seed."""
    torch.manual_seed(cfg.seed)
    return _build(cfg, tokenizers).to(pick_device(cfg.device))


def outline(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> RNNSearch:
    """Build a model without memory for its weights: their names and shapes alone."""
    with torch.device("meta"):
        return _build(cfg, tokenizers)


def _build(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> RNNSearch:
    source, target = map(len, tokenizers)
    return build_model(cfg.model, cfg.attention, num_source=source, num_target=target, pad=PAD)


def pick_device(device: Device) -> torch.device:
    """Return the device of a config.

    Raises:
        PlatformError: CUDA was asked for and is not there.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise PlatformError("device", "no CUDA device was found", "Use device=cpu or device=auto.")
    if device is Device.cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
