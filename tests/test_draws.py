"""Draws by key and counter: NumPy's numbers, fair shares, and nothing else that they depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import (
    PAD,
    STACKED,
    draws_of,
    follow,
    random_batch,
    random_pairs,
    tiny_model,
    tiny_transformer,
)
from test_cells import DROPPED

from seq2seq.config.schema import Backend, StackedEncoderConfig
from seq2seq.data.batching import collate
from seq2seq.model.draws import Drawing, entry_keys, fold, keyed, name_sites, stream
from seq2seq.model.dropout import Dropout

DROPOUTS = dict.fromkeys(("embedding_dropout", "annotation_dropout", "readout_dropout"), 0.5)


# The generator, from its paper, in NumPy's unsigned numbers.


def splitmix(state: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.asarray(state, np.uint64)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)


def bits(key: int, count: int, first: int = 1) -> np.ndarray:
    """The outputs of a generator that starts from a key."""
    with np.errstate(over="ignore"):
        steps = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return splitmix(np.uint64(key) + steps)


def oracle_key(*numbers: int) -> int:
    key = 0
    for number in numbers:
        [key] = bits(key, 1, number + 1).tolist()
    return key


def oracle_keys(seed: int, update: int, count: int, number: int = 0) -> np.ndarray:
    return bits(oracle_key(seed, update, number), count)


def test_the_generator_gives_the_published_numbers():
    """Of SplitMix64 with seed 0, as in the tests of several languages' libraries."""
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert bits(0, 4).tolist() == known
    uniform = stream(0)
    assert [uniform() for _ in known] == [(x >> 11) / 2**53 for x in known]


@pytest.mark.parametrize("case", [(1, 1, 5, 0), (1234, 70_000, 9, 1), (2**31, 3, 1, 0)])
def test_keys_and_bits_are_those_of_numpy(case):
    seed, update, count, number = case
    keys = entry_keys(seed, update, count, number=number)
    expected = oracle_keys(*case)
    assert keys.numpy().view(np.uint64).tolist() == expected.tolist()
    module = Drawing()
    module.site = 77
    with keyed(keys):
        sentences, first = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        found = module.bits(sentences, first, 6).numpy().view(np.uint64)
        uniform = module.uniform(sentences, first, 6).numpy()
        later = module.bits(sentences, first + 4, 2).numpy().view(np.uint64)
        assert (later == found[:, 4:]).all()
    for row, key in enumerate(expected.tolist()):
        numbers = bits(key ^ oracle_key(77), 6)
        assert found[row].tolist() == numbers.tolist()
        assert uniform[row].tolist() == [int(x) / 2**53 for x in numbers >> np.uint64(11)]


def test_other_numbers_are_other_keys():
    cases = [(s, u, p) for s in range(5) for u in range(200) for p in range(2)]
    keys = torch.cat([entry_keys(s, u, 50, number=p) for s, u, p in cases])
    assert len(keys.unique()) == len(keys)
    assert len({fold(*numbers) for numbers in [(0,), (0, 0), (1,), (0, 1), (1, 0), ()]}) == 6


# Dropout


def dropped(p: float, shape: tuple[int, int, int], seed: int = 1) -> torch.Tensor:
    with keyed(entry_keys(seed, 1, shape[0])):
        return Dropout(p)(torch.ones(shape))


def test_the_mask_is_that_of_numpy():
    p, (B, T, d) = 0.3, (3, 4, 10)
    for b, key in enumerate(oracle_keys(1, 1, B).tolist()):
        numbers = bits(key ^ oracle_key(0), T * 3).view(np.int16).reshape(T, 12)[:, :d]
        expected = (numbers < round((1 - p) * 2**16) - 2**15) / (round((1 - p) * 2**16) / 2**16)
        np.testing.assert_allclose(dropped(p, (B, T, d))[b], expected, rtol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_share_and_scale(p):
    found = dropped(p, (50, 20, 1001))  # no multiple of four
    share = (found == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / found.numel()) ** 0.5 + 1e-5)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    assert found.mean().item() == pytest.approx(1, abs=0.02)


def test_numbers_are_dropped_one_by_one():
    """Neighbours come from one draw of 64 bits, but are dropped as if each had its own."""
    zeros = (dropped(0.3, (40, 250, 40)) == 0).double()
    for view in (zeros, zeros.transpose(0, 1), zeros.transpose(0, 2)):  # along every dimension
        groups = view.reshape(-1, 8)
        together = groups.T @ groups / len(groups)
        together.fill_diagonal_(0.09)
        assert (groups.mean(dim=0) - 0.3).abs().max() < 0.01
        assert (together - 0.09).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_gradient_has_the_mask_of_the_output(dtype):
    x = torch.randn(5, 4, 3, dtype=dtype).requires_grad_()
    with keyed(entry_keys(1, 1, 5)):
        found = Dropout(0.5)(x)
    [grad] = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(x.detach() * grad, found.detach())
    assert found.dtype is dtype


def test_nothing_is_dropped_where_nothing_should_be():
    x = torch.randn(4, 5, 2)
    assert Dropout(0.4).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(1e-7)(x) is x
    with keyed(entry_keys(1, 1, 4)):
        assert Dropout(0.999999)(x).isfinite().all()
        assert Dropout(0.4)(x[:0]).shape == (0, 5, 2)
    with pytest.raises(RuntimeError, match="keyed"):
        Dropout(0.4)(x)


# Whole models


DECODER = replace(STACKED["between, residual"], dropout=0.5)
MODELS = {
    "reference": lambda: tiny_model(3, backend=Backend.reference, **DROPOUTS),
    "fused": lambda: tiny_model(3, backend=Backend.fused, **DROPOUTS),
    "stacked": lambda: tiny_model(3, encoder=StackedEncoderConfig(dropout=0.5)),
    "stacked decoder": lambda: tiny_model(3, decoder=DECODER, **DROPOUTS),
    "transformer": lambda: tiny_transformer(
        3, dropout=0.3, inner_dropout=0.3, attention_dropout=0.5
    ),
}
MODELS |= {
    kind: lambda changes=changes: tiny_model(3, **changes) for kind, changes in DROPPED.items()
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_sentence_draws_the_same_in_any_company(kind):
    """Alone and unpadded, or among longer ones: log p is the same, with all dropouts on."""
    model = MODELS[kind]().train()
    pairs = random_pairs(3, ((4, 3), (9, 8), (1, 2), (6, 9)))
    together = follow(model, collate(pairs, PAD), seed=4).t.split([len(tgt) for _, tgt in pairs])
    keys = entry_keys(4, 1, len(pairs))
    for row, pair in enumerate(pairs):
        alone = collate([pair], PAD)
        with keyed(keys[row : row + 1]):
            t = model.follow(alone.src, alone.src_mask, alone.tgt, alone.tgt_mask).t
        torch.testing.assert_close(t, together[row], rtol=1e-10, atol=1e-12)


def test_every_module_draws_for_itself_and_every_pass_anew():
    model = tiny_model(3, **DROPOUTS)
    sites = {name: m.site for name, m in model.named_modules() if isinstance(m, Drawing)}
    assert len({*sites.values()}) == len(sites) == 6
    before = dict(sites)
    name_sites(model)
    assert before == {name: m.site for name, m in model.named_modules() if isinstance(m, Drawing)}
    batch = random_batch(3)
    first, again = (follow(model.train(), batch, seed=4).t for _ in range(2))
    assert torch.equal(first, again)
    with keyed(entry_keys(4, 1, batch.num_sentences, number=1)):
        assert not torch.equal(
            model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask).t, first
        )


def test_streams_of_texts_do_not_depend_on_each_other():
    numbers = [[draw() for _ in range(3)] for draw in draws_of("abc", 5)]
    assert len({x for row in numbers for x in row}) == 9
    assert numbers[1] == [(int(x) >> 11) / 2**53 for x in bits(oracle_key(5, 1), 3)]


def test_dropped_weights_of_attention_are_what_the_values_are_averaged_by():
    """Each head and position draws for itself; with dropout the same sums come by another way."""
    model = tiny_transformer(3, attention_dropout=0.5)
    batch = random_batch(3)
    [layer, _] = model.encoder.layers
    attention = layer.self_attention.train()
    x = torch.randn(*batch.src.shape, 4, dtype=torch.float64)
    mask, past = batch.src_mask[:, None, None], attention.prepare(x)
    with keyed(entry_keys(1, 1, batch.num_sentences)):
        alpha = attention.weights(x, past, mask)
        dropped = attention.dropout.of_weights(alpha)
        c = (dropped @ past[1]).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention(x, past, mask), attention.W_O(c))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * alpha[kept])
    assert 0.35 < kept[mask.expand_as(alpha)].double().mean() < 0.65
    assert not torch.equal(kept[0, 0], kept[0, 1])
    assert not torch.equal(kept[0, 0, 0], kept[0, 0, 1])
    attention.dropout.p = 1e-7  # the explicit way, causal and not, is that of torch's own function
    with keyed(entry_keys(1, 1, batch.num_sentences)):
        found = [attention(x, past, mask), attention(x, past, causal=True)]
    attention.eval()
    for actual, expected in zip(
        found, [attention(x, past, mask), attention(x, past, causal=True)], strict=True
    ):
        torch.testing.assert_close(actual, expected)


def test_word_dropout_takes_whole_words():
    """Of each side a share of the words, the same whatever the batch; the others are scaled."""
    module, keys = Dropout(0.25).train(), entry_keys(1, 1, 40)
    module.site = 5
    x = torch.rand(40, 50, 3, dtype=torch.float64) + 1
    with keyed(keys):
        found = module.of_words(x)
    gone = (found == 0).all(dim=-1)
    assert torch.equal(gone, (found == 0).any(dim=-1))
    torch.testing.assert_close(found[~gone], x[~gone] / 0.75)
    assert 0.2 < gone.double().mean() < 0.3
    with keyed(keys[7:9]):
        assert torch.equal(module.of_words(x[7:9]), found[7:9])
    assert module.eval().of_words(x) is x
