"""The `fused` backend: runs on kernels where they exist, and on the reference elsewhere."""

from collections.abc import Sequence

from torch import Tensor

from seq2seq.kernels.lstm import is_plain, read_lstm
from seq2seq.kernels.matmul import FusedLinear, compute_dtype
from seq2seq.kernels.native.int8 import require
from seq2seq.kernels.output_layer import output_loss
from seq2seq.kernels.scan import read_fused
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.unroll import KNOWN, unroll
from seq2seq.kernels.words import PackedSearch
from seq2seq.model import recurrence
from seq2seq.model.attention import AdditiveAttention
from seq2seq.model.backend import Backend
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.protocols import Cell, Decoder, Encoder, Stepper
from seq2seq.model.stacked_decoder import StackedDecoder


def read(
    units: Sequence[Cell], x: Tensor, mask: Tensor, start: Tensor | None = None
) -> list[Tensor]:
    """See `recurrence.read`; 0 at padding."""
    gated = [u for u in units if isinstance(u, GatedUnit) and u.__class__ is GatedUnit]
    if len(gated) == len(units):
        return read_fused(gated, x, mask, start)
    plain = [u for u in units if is_plain(u)]
    if len(plain) == len(units) and x.device.type == "cpu":
        return read_lstm(plain, x, mask, start)
    return recurrence.read(units, x, mask, start)


class Fused(Backend):
    """The `Backend` on kernels, for any device."""

    linear = FusedLinear
    read = staticmethod(read)
    unroll = staticmethod(unroll)
    output_loss = staticmethod(output_loss)

    def obstacle(self, encoder: Encoder, decoder: Decoder) -> str | None:
        """Return why part of a model falls back to the reference; None if nothing falls back."""
        parts: list[object] = [decoder]
        if isinstance(decoder, StackedDecoder) and decoder.at_once:
            parts = [*decoder.cells]  # only these need a loop
        parts += getattr(encoder, "units", [])
        if isinstance(decoder, RecurrentDecoder):
            parts += [decoder.unit, decoder.attention]
        known = {RecurrentDecoder, GatedUnit, *KNOWN}
        unknown = [part.__class__ for part in parts if part.__class__ not in known]
        return f"{unknown[0].__name__} has no fused kernel" if unknown else None

    def for_search(
        self, encoder: Encoder, decoder: Decoder, *, int8: bool = False
    ) -> Stepper | None:
        """Return a stepper on kernels, if the decoder has one.

        Raises:
            PlatformError: see `int8.require`.
        """
        if not isinstance(decoder, RecurrentDecoder) or decoder.__class__ is not RecurrentDecoder:
            return None
        if (decoder.unit.__class__, decoder.attention.__class__) != (GatedUnit, AdditiveAttention):
            return None
        if int8:
            require(decoder.U_o.weight)
        return FusedSearch(encoder, decoder, compute_dtype(decoder.U_o.weight), int8=int8)

    def packed(self, model: Stepper) -> Stepper:
        """Return a stepper with packed weights and the words' own kernels."""
        assert isinstance(model, EncoderDecoder)
        return PackedSearch(model)
