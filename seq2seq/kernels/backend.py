"""The backend `fused`: what there are kernels for runs on them, all else on the reference."""

from collections.abc import Sequence

from torch import Tensor, nn

from seq2seq.kernels.matmul import FusedLinear, compute_dtype
from seq2seq.kernels.output_layer import output_loss
from seq2seq.kernels.scan import read_fused
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.unroll import unroll_additive, unroll_fixed
from seq2seq.model.attention import AdditiveAttention, FixedContext
from seq2seq.model.backend import Reference
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.protocols import Attention, Cell, Source, Stepper
from seq2seq.model.recurrence import Unrolled

# By exact class: a subclass changes the rules.
_UNROLL = {
    (GatedUnit, AdditiveAttention): unroll_additive,
    (GatedUnit, FixedContext): unroll_fixed,
}
_KNOWN = {RecurrentDecoder, *(kind for classes in _UNROLL for kind in classes)}


class Fused:
    """`Backend` on the kernels, for any device."""

    linear: type[nn.Linear] = FusedLinear

    def __init__(self) -> None:
        self.reference = Reference()

    def obstacle(self, model: nn.Module) -> str | None:
        """Return why a part of this model runs on the reference; None if none does."""
        decoder = model.decoder
        parts = [decoder, *getattr(model.encoder, "units", [])]
        parts += [part for name in ("unit", "attention") if (part := getattr(decoder, name, None))]
        unknown = [part for part in parts if part.__class__ not in _KNOWN]
        return f"{unknown[0].__class__.__name__} has no fused kernel" if unknown else None

    def read(self, units: Sequence[Cell], x: Tensor, mask: Tensor) -> list[Tensor]:
        """See `recurrence.read`; 0 at padding."""
        if {unit.__class__ for unit in units} == {GatedUnit}:
            return read_fused(units, x, mask)
        return self.reference.read(units, x, mask)

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
        classes = unit.__class__, attention.__class__
        run = _UNROLL.get(classes, self.reference.unroll)
        return run(unit, attention, words, s_0, source, mask)

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss in chunks of rows."""
        return output_loss(W_o, t, targets, label_smoothing)

    def for_search(self, model: nn.Module) -> Stepper | None:
        """Return a search on kernels, where there is one."""
        decoder = model.decoder
        if decoder.__class__ is not RecurrentDecoder:
            return None
        if (decoder.unit.__class__, decoder.attention.__class__) != (GatedUnit, AdditiveAttention):
            return None
        return FusedSearch(model.encoder, decoder, compute_dtype(decoder.U_o.weight))
