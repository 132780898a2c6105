"""The backend `fused`: what there are kernels for runs on them, all else on the reference."""

from collections.abc import Sequence

from torch import Tensor, nn

from seq2seq.kernels.output import output_loss
from seq2seq.kernels.precision import FusedLinear, product_format
from seq2seq.kernels.scan import read_fused
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.unroll import unroll_additive, unroll_fixed
from seq2seq.model.attention import AdditiveAttention, FixedContext
from seq2seq.model.backend import Reference
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.encoder import RecurrentEncoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.protocols import Attention, Cell, Source, Stepper
from seq2seq.model.recurrence import Unrolled

# A subclass changes the rules, so what is known is known by its exact class.
_CELLS, _ATTENTIONS = (GatedUnit,), (AdditiveAttention, FixedContext)


class Fused:
    """`Backend` on the kernels, for any device."""

    linear: type[nn.Linear] = FusedLinear

    def __init__(self) -> None:
        self.reference = Reference()

    def obstacle(self, model: nn.Module) -> str | None:
        """Return why a part of this model runs on the reference; None if none does."""
        encoder, decoder = model.encoder, model.decoder
        if type(decoder) is not RecurrentDecoder:
            return f"{type(decoder).__name__} has no fused kernel"
        units = encoder.units if isinstance(encoder, RecurrentEncoder) else []
        for part, known in [
            *((unit, _CELLS) for unit in (*units, decoder.unit)),
            (decoder.attention, _ATTENTIONS),
        ]:
            if type(part) not in known:
                return f"{type(part).__name__} has no fused kernel"
        return None

    def read(self, units: Sequence[Cell], x: Tensor, mask: Tensor) -> list[Tensor]:
        """See `recurrence.read`; 0 at padding."""
        known = [unit for unit in units if type(unit) is GatedUnit]
        if len(known) < len(units):
            return self.reference.read(units, x, mask)
        return read_fused(known, x, mask)

    def unroll(
        self,
        unit: Cell,
        attention: Attention,
        words: Tensor,
        s_0: Tensor,
        source: Source,
        mask: Tensor,
    ) -> Unrolled:
        """See `recurrence.unroll`; 0 at padding."""
        if type(unit) is GatedUnit and type(attention) is AdditiveAttention:
            return unroll_additive(unit, attention, words, s_0, source, mask)
        if type(unit) is GatedUnit and type(attention) is FixedContext:
            return unroll_fixed(unit, attention, words, s_0, source, mask)
        return self.reference.unroll(unit, attention, words, s_0, source, mask)

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss in chunks of rows."""
        return output_loss(W_o, t, targets, label_smoothing)

    def for_search(self, model: nn.Module) -> Stepper | None:
        """Return a search on kernels, where there is one."""
        decoder = model.decoder
        known = type(decoder) is RecurrentDecoder and type(decoder.unit) is GatedUnit
        if not (known and type(decoder.attention) is AdditiveAttention):
            return None
        return FusedSearch(model.encoder, decoder, product_format(decoder.U_o.weight))
