"""Words that share their vectors: one matrix for embeddings and output, saved once."""

import pytest
import torch
from conftest import PAD, STACKED, batch_loss, random_batch, tiny_model, tiny_transformer

from seq2seq.config.schema import Backend, Normalize, Tied
from seq2seq.run.errors import ConfigError

SIZES = {"embedding_size": 4, "readout_size": 4, "output_rank": None}
MODELS = {
    "recurrent": lambda **changes: tiny_model(3, **SIZES, **changes),
    "low rank": lambda **changes: tiny_model(3, **SIZES | {"output_rank": 4}, **changes),
    "stacked": lambda **changes: tiny_model(3, **SIZES, decoder=STACKED["fed"], **changes),
    "transformer": lambda **changes: tiny_transformer(3, **changes),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("tied", [Tied.target, Tied.all])
def test_tied_words_are_one_matrix_and_y_0_stays_the_zero_vector(kind, tied):
    separate, model = MODELS[kind](), MODELS[kind](tied=tied)
    names = {name for name, _ in separate.named_parameters()}
    fewer = names - {name for name, _ in model.named_parameters()}
    assert len(fewer) == (2 if tied is Tied.all else 1)
    assert model.decoder.words_layer.weight is model.decoder.embedding.E.weight
    shared = model.encoder.embedding.E.weight is model.decoder.embedding.E.weight
    assert shared == (tied is Tied.all)
    # The softmax moves the row of y_0; what is read at y_0 stays zero.
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch_loss(model, random_batch(3)).objective(Normalize.none).backward()
    optimizer.step()
    assert model.decoder.embedding.E.weight[PAD].abs().max() > 1e-3
    assert not model.decoder.embedding(torch.tensor([PAD])).any()


@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused])
def test_the_gradient_of_tied_words_is_that_of_both_uses(backend):
    separate = tiny_model(4, **SIZES)
    tied = tiny_model(4, **SIZES, tied=Tied.target, backend=backend)
    with torch.no_grad():
        for name, parameter in separate.named_parameters():
            if name != "decoder.W_o.weight":
                parameter.copy_(dict(tied.named_parameters())[name])
        separate.decoder.W_o.weight.copy_(tied.decoder.embedding.E.weight)
    for model in (separate, tied):
        batch_loss(model, random_batch(4)).objective(Normalize.none).backward()
    both = separate.decoder.W_o.weight.grad + separate.decoder.embedding.E.weight.grad
    torch.testing.assert_close(tied.decoder.embedding.E.weight.grad, both)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"model.tied: the rows of the output layer are 7 x 2"):
        tiny_model(1, tied=Tied.target, output_rank=None)
