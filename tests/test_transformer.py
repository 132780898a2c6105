"""The Transformer against NumPy loops written from its paper, and against torch's own layers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    SELF_ATTENTION,
    STACKED,
    follow,
    oracle_of,
    random_batch,
    tiny_model,
    tiny_transformer,
)
from test_equations import (
    TOLERANCE,
    assert_gradients_are_the_oracles,
    assert_values_are_the_oracles,
    differences,
)
from test_search import RULES, random_sources, search
from torch import nn

from seq2seq.config.schema import Activation, MultiHeadConfig, Norm, PositionKind
from seq2seq.decoding.forced import force_ids, has_maps, with_maps
from seq2seq.decoding.ranking import Ranking
from seq2seq.model.transformer import HeadsAttention, Positions, sinusoids
from seq2seq.run.errors import ConfigError

KINDS = {
    "as printed": {},
    "pre-norm": {"norm": Norm.pre},
    "learned positions": {"positions": PositionKind.learned, "longest": 3},
    "gelu": {"activation": Activation.gelu, "norm": Norm.pre},
    "one head of a layer": {"layer": 1, "head": 2},
}


def model_of(kind: str, seed: int):
    return tiny_transformer(seed, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_oracles_along_targets_and_word_by_word(kind):
    assert_values_are_the_oracles(lambda seed: model_of(kind, seed))


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_oracles(kind):
    assert_gradients_are_the_oracles(model_of(kind, 12), seed=12)


def test_a_recurrent_decoder_over_self_attention_is_the_oracle():
    model = tiny_model(3, encoder=SELF_ATTENTION, hidden_size=4, embedding_size=4)
    worst = differences(model, oracle_of(model), random_batch(3))
    assert max(worst.values()) < TOLERANCE, worst
    assert_gradients_are_the_oracles(model, seed=3)


def test_heads_divide_the_annotations_of_the_encoder_that_there_is():
    sizes = {"encoder": SELF_ATTENTION, "hidden_size": 4, "embedding_size": 4, "align_size": 8}
    with pytest.raises(ConfigError, match=r"heads=8 does not divide the width of annotations, 4"):
        tiny_model(3, **sizes, attention=MultiHeadConfig(heads=8))


def test_a_transformer_decoder_over_a_recurrent_encoder_searches_and_is_forced_alike():
    model = tiny_transformer(4, self_attention=False, vocab=9)
    sources = random_sources(4, [4, 1, 6], 9)
    for source, found in zip(sources, search(model, sources, RULES), strict=True):
        again = force_ids(model, [(source, h.ids) for h in found], Ranking())
        for h, forced in zip(found, again, strict=True):
            assert h.log_prob == pytest.approx(forced.log_prob, abs=1e-5)
            assert h.alpha == pytest.approx(forced.alpha, abs=1e-6)


# torch's own layers -----------------------------------------------------------------------------


def copy_attention(ours: HeadsAttention, theirs: nn.MultiheadAttention) -> None:
    for kind in ("weight", "bias"):
        parts = [getattr(ours.W_Q, kind), getattr(ours.W_KV, kind)]
        getattr(theirs, f"in_proj_{kind}").copy_(torch.cat(parts))
    theirs.out_proj.load_state_dict(ours.W_O.state_dict())


def copy_layer(ours: nn.Module, theirs: nn.Module) -> None:
    copy_attention(ours.self_attention, theirs.self_attn)
    if hasattr(ours, "attention"):
        copy_attention(ours.attention, theirs.multihead_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.W_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.W_2.state_dict())
    for i, residual in enumerate(ours.residuals, start=1):
        getattr(theirs, f"norm{i}").load_state_dict(residual.norm.state_dict())


@torch.no_grad()
@pytest.mark.parametrize(("norm", "activation"), list(itertools.product(Norm, Activation)))
def test_layers_are_those_of_torch(norm, activation):
    model = tiny_transformer(5, norm=norm, activation=activation)
    batch, d = random_batch(5), 4
    sizes = {"d_model": d, "nhead": 2, "dim_feedforward": 6, "batch_first": True, "dropout": 0.0}
    kind = {"norm_first": norm is Norm.pre, "activation": activation.name, "dtype": torch.float64}
    x = torch.randn(*batch.src.shape, d, dtype=torch.float64)
    layer, mask = model.encoder.layers[0], batch.src_mask
    theirs = nn.TransformerEncoderLayer(**sizes, **kind)
    copy_layer(layer, theirs)
    expected = theirs.train()(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(layer(x, mask[:, None, None])[mask], expected[mask])
    # The same for a layer of the decoder, which asks these outputs.
    y, layer = torch.randn(*batch.tgt.shape, d, dtype=torch.float64), model.decoder.layers[1]
    theirs = nn.TransformerDecoderLayer(**sizes, **kind)
    copy_layer(layer, theirs)
    causal = nn.Transformer.generate_square_subsequent_mask(y.shape[1], dtype=torch.float64)
    expected = theirs.train()(y, x, tgt_mask=causal, memory_key_padding_mask=~mask)
    found, _, _ = layer(y, None, layer.attention.prepare(x), mask[:, None, None])
    torch.testing.assert_close(found, expected)


def test_positions_are_the_sinusoids_of_the_paper():
    found = sinusoids(50, 6)
    p, i = 37, 2
    assert found[p, 2 * i].item() == pytest.approx(
        torch.sin(torch.tensor(p / 10_000 ** (4 / 6), dtype=torch.float64)).item()
    )
    positions = Positions(6, None)
    assert torch.equal(positions(20, 5, found), found[20:25])
    assert torch.equal(positions(0, 50, found), found)
    # A shift by k is a rotation, the same everywhere: the reason that the paper gives for them.
    pairs = torch.view_as_complex(found.unflatten(1, (-1, 2)).flip(-1).contiguous())
    torch.testing.assert_close(pairs[13:] / pairs[:-13], (pairs[13] / pairs[0]).expand(37, -1))


# What is attended to ----------------------------------------------------------------------------


@torch.no_grad()
def test_weights_of_every_layer_and_head_are_those_that_average():
    """By hand from the values: what a layer adds is W_O of the averages by these weights."""
    model, batch = tiny_transformer(6, norm=Norm.pre), random_batch(6)
    followed, (Tx, Ty) = follow(model, batch), (batch.src.shape[1], batch.tgt.shape[1])
    maps = followed.maps()  # (layers, B, h, rows, columns)
    sizes = {"encoder": (Tx, Tx), "heads": (Ty, Tx), "decoder": (Ty, Ty)}
    assert {name: m.shape for name, m in maps.items()} == {
        name: (2, 4, 2, *size) for name, size in sizes.items()
    }
    padding = ~batch.src_mask[None, :, None, None]
    future = torch.ones(Ty, Ty, dtype=torch.bool).triu(1)
    for name, hidden in (("encoder", padding), ("heads", padding), ("decoder", future)):
        weights = maps[name]
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]).double())
        assert (weights[hidden.expand_as(weights)] == 0).all(), name
    torch.testing.assert_close(followed.alpha, maps["heads"][-1].mean(dim=1))
    for layer, head in np.ndindex(2, 2):
        one = follow(tiny_transformer(6, norm=Norm.pre, layer=layer + 1, head=head + 1), batch)
        torch.testing.assert_close(one.alpha, maps["heads"][layer][:, head])
    # Each kind of attention, in the second layer: its values are caught on their way.
    for name, attention in {
        "encoder": model.encoder.layers[1].self_attention,
        "heads": model.decoder.layers[1].attention,
        "decoder": model.decoder.layers[1].self_attention,
    }.items():
        (_, (_, values), *_), added = caught(attention, lambda: follow(model, batch))
        by_hand = attention.W_O((maps[name][1] @ values).transpose(1, 2).flatten(2))
        assert (added - by_hand).abs().max() < TOLERANCE, name


def caught(module: nn.Module, run) -> tuple[tuple, torch.Tensor]:
    """What a module is given and returns in a run."""
    calls = []
    with module.register_forward_hook(lambda _, args, out: calls.append((args, out))):
        run()
    [call] = calls
    return call


@pytest.mark.parametrize("self_attention", [True, False])
def test_what_a_search_found_is_followed_once_for_all_heads(self_attention):
    model = tiny_transformer(9, self_attention=self_attention, vocab=9)
    sources = random_sources(9, [4, 1, 6], 9)
    assert [*with_maps(model, sources[0], [])] == []  # a broken model finds nothing
    for source, found in zip(sources, search(model, sources, RULES), strict=True):
        assert found
        for h in with_maps(model, source, found):
            assert set(h.maps) == {"heads", "decoder", *["encoder"] * self_attention}
            T, Tx = len(h.ids), len(source)
            assert h.maps["heads"].shape == (2, 2, T, Tx)
            assert h.maps["heads"][-1].mean(axis=0) == pytest.approx(h.alpha, abs=1e-6)
            assert np.abs(h.maps["heads"][0, 0] - h.maps["heads"][0, 1]).max() > 1e-3 or Tx == 1
            assert h.maps["decoder"].shape == (2, 2, T, T)
            for weights in h.maps.values():
                np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert has_maps(model)


@pytest.mark.parametrize("changes", [{}, *({"decoder": STACKED[k]} for k in ("top", "between"))])
@pytest.mark.parametrize("kind", FAMILY)
def test_of_recurrent_models_those_with_several_heads_show_them(kind, changes):
    changes = {"attention": FAMILY[kind], "align_size": 4, **changes}
    model, batch = tiny_model(10, **changes), random_batch(10)
    followed = follow(model, batch)
    assert has_maps(model) == (kind == "multi_head") == bool(followed.maps())
    for weights in followed.maps().values():
        assert weights.shape == (1, 4, 2, batch.tgt.shape[1], batch.src.shape[1])
        torch.testing.assert_close(weights[0].mean(dim=1), followed.alpha)
        assert (weights[0, :, 0] - weights[0, :, 1]).abs().max() > 1e-3


# Search -----------------------------------------------------------------------------------------


def test_a_wide_beam_finds_what_exhaustion_finds():
    vocab, bound, eos = 5, 4, RULES.eos
    model = tiny_transformer(7, vocab=vocab)
    rules = replace(RULES, beam_size=200, min_ratio=0.0, max_ratio=bound / 2)
    [source] = random_sources(7, [2], vocab)
    targets = [
        (*words, eos)
        for length in range(bound)
        for words in itertools.product(range(2, vocab), repeat=length)
    ]
    forced = force_ids(model, [(source, t) for t in targets], Ranking())
    scores = {h.ids: h.log_prob for h in forced}
    [found] = search(model, [source], rules)
    assert [h.ids for h in found] == sorted(scores, key=scores.get, reverse=True)


# A wrong model is noticed -----------------------------------------------------------------------


def post_for_pre(model):
    for module in model.modules():
        if hasattr(module, "pre_norm"):
            module.pre_norm = False


def heads_side_by_side(model):
    model.decoder.layers[0].attention._split = lambda x: x.unflatten(-1, (-1, 2)).movedim(-1, 1)


def not_causal(model):
    attention = model.decoder.layers[0].self_attention
    plain = attention.forward
    attention.forward = lambda x, past, mask=None, *, causal=False: plain(x, past, mask)


def positions_from_one(model):
    positions = model.decoder.words.positions
    plain = positions.forward
    positions.forward = lambda first, count, like: plain(first + 1, count, like)


def words_not_scaled(model):
    model.encoder.words.positions.width = 1


def padding_is_seen(model):
    attention = model.encoder.layers[0].self_attention
    plain = attention.forward
    attention.forward = lambda x, past, mask=None, *, causal=False: plain(x, past)


def keys_of_the_layer_below(model):
    model.decoder.layers[1].attention.W_KV = model.decoder.layers[0].attention.W_KV


def no_last_norm(model):
    model.decoder.norm = nn.Identity()


MUTATIONS = [
    post_for_pre,
    heads_side_by_side,
    not_causal,
    positions_from_one,
    words_not_scaled,
    padding_is_seen,
    keys_of_the_layer_below,
    no_last_norm,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_wrong_model_is_noticed(mutate):
    model, batch = tiny_transformer(21, norm=Norm.pre), random_batch(21)
    oracle = oracle_of(model)
    assert max(differences(model, oracle, batch).values()) < TOLERANCE
    mutate(model)
    assert max(differences(model, oracle, batch).values()) > 1e-4
