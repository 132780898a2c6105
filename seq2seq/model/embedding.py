"""Word embeddings, with a zero vector for y_0, the word before the first."""

from torch import Tensor, nn

from seq2seq.model.initialization import Scheme


class WordEmbedding(nn.Module):
    """E x_j: row x_j of a (K, m) matrix, plus an optional bias.

    The paper prints no bias; the authors' code adds one to every embedded word. `zero_id` is the
    id of y_0. There is no start symbol: y_0 is embedded as the zero vector, without the bias.
    """

    def __init__(self, num_words: int, size: int, *, bias: bool, zero_id: int) -> None:
        super().__init__()
        self.zero_id = zero_id
        self.E = nn.Embedding(num_words, size, padding_idx=zero_id)
        self.bias = nn.Parameter(self.E.weight.new_zeros(size)) if bias else None
        self.tied = False  # if True, another layer shares E, so updates may change the row of y_0

    def initialize(self, scheme: Scheme) -> None:
        """Draw the vectors, then reset that of y_0 to zero, which the draw overwrites."""
        scheme.embedding(self.E.weight)
        self.E.weight[self.zero_id] = 0.0
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids (...) as (..., m)."""
        embedded: Tensor = self.E(ids)
        if self.bias is not None:
            embedded = embedded + self.bias
        if self.bias is None and not self.tied:
            return embedded
        return embedded * (ids != self.zero_id).unsqueeze(-1)
