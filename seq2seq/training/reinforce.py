"""How hard attention learns where to look: REINFORCE, as in Xu et al. 2015, 4.1.

A draw has no gradient. Moving its log-probability along (reward - baseline) moves the expected
cost downhill. The reward of a look is the log-probability of the words from there on, since the
drawn context enters the state; what came before cannot depend on it. Later words tell less and
less about a look but add their noise, so they may be discounted. The baseline is learned: the
decoder state predicts the mean reward of a word to come.
"""

import torch
from torch import Tensor

from seq2seq.config.schema import HardConfig
from seq2seq.data.batching import Batch
from seq2seq.model import DecoderOutput


def draws_cost(output: DecoderOutput, batch: Batch, cfg: HardConfig) -> Tensor:
    """Return a scalar whose gradient is that of the draws, to be added to the summed cost.

    Its value means nothing. Three terms, summed over target words: the draws' log-probability
    times their advantage, the entropy bonus, and the squared error of the baseline.

    Args:
        output: Of a model with hard attention in training mode.
        batch: Its batch.
        cfg: The weights of the terms.
    """
    assert output.draw is not None
    mask = batch.tgt_mask
    reward, left = rewards_to_go(output.logits.detach(), batch, cfg.discount)
    baseline = output.draw.baseline[mask]
    advantage = reward - left * baseline.detach()
    policy = -(advantage * output.draw.log_prob[mask]).sum()
    entropy = -output.draw.entropy[mask].sum()
    error = (baseline - reward / left).square().sum()
    return cfg.reinforce_weight * policy + cfg.entropy_weight * entropy + error / 2


def rewards_to_go(logits: Tensor, batch: Batch, discount: float) -> tuple[Tensor, Tensor]:
    """Return, per real target word i, sum_{k >= i} discount^(k-i) log p(y_k) (N,).

    Also the same sum of ones (N,): how many words that reward is made of.
    """
    mask = batch.tgt_mask
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = torch.log_softmax(logits, dim=-1, dtype=wide)
    reward = log_p.new_zeros(mask.shape)
    reward[mask] = log_p.gather(1, batch.tgt[mask][:, None]).squeeze(1)
    left = mask.to(wide)
    for i in reversed(range(mask.shape[1] - 1)):  # padding comes last and adds zero
        reward[:, i] += discount * reward[:, i + 1]
        left[:, i] += discount * left[:, i + 1]
    return reward[mask], left[mask]
