"""Minimum risk training: the expected score of a model's own translations.

    risk = sum_y q(y) (1 - score(y, reference)),   q(y) ~ p(y | x)^alpha

over distinct candidates y of each sentence: Shen et al. 2016, Minimum Risk Training for Neural
Machine Translation (arXiv:1512.02433), with samples; Edunov et al. 2018, Classical Structured
Prediction Losses for Sequence to Sequence Learning (arXiv:1711.04956), with the beam, and with a
share of the likelihood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from seq2seq.config.registry import builds
from seq2seq.config.schema import Candidates, Config, MinimumRiskConfig
from seq2seq.data.batching import Batch, pad_ids
from seq2seq.data.tags import tag_ids
from seq2seq.data.tokenizer import EOS, PAD, Tokenizer
from seq2seq.decoding.minimum_bayes_risk import sentence_score
from seq2seq.decoding.sampling import SamplingRules, sample
from seq2seq.decoding.search import SearchRules, beam_search
from seq2seq.decoding.translate import search_rules
from seq2seq.model import EncoderDecoder
from seq2seq.model.protocols import Followed
from seq2seq.run.errors import ConfigError
from seq2seq.training.loss import Loss, log_probs
from seq2seq.training.objective import Task

Ids = tuple[int, ...]


@dataclass(frozen=True)
class MinimumRisk:
    """The risk of a sentence, between 0 and 1, counts as much as that many nats of likelihood."""

    own: MinimumRiskConfig
    rules: SearchRules
    target: Tokenizer
    language: str
    languages: Mapping[int, str]  # by tag before the source; empty if there is only one
    bleu_tokenizer: str | None
    label_smoothing: float
    passes = 1

    def prepare(self, model: EncoderDecoder, batch: Batch, keys: Tensor) -> Task:
        """See `Objective`: the references, then all candidates, with the draws of their source."""
        # Candidates of each sentence, each once; the reference among them if asked for.
        references = [
            tuple(row[real].tolist()) for row, real in zip(batch.tgt, batch.tgt_mask, strict=True)
        ]
        found = self.candidates(model, batch, keys[:, 0])
        if self.own.reference:
            found = [[ids, *more] for ids, more in zip(references, found, strict=True)]
        found = [[*dict.fromkeys(each)] for each in found]

        # One batch: all references, which the loss shown is of, then all candidates.
        at = torch.arange(len(found)).repeat_interleave(torch.tensor([*map(len, found)]))
        rows = torch.cat([torch.arange(len(found)), at]).to(keys.device)
        sides = pad_ids([*references, *chain.from_iterable(found)], PAD)
        tgt, tgt_mask = (side.to(keys.device) for side in sides)
        seen = Batch(batch.src[rows], batch.src_mask[rows], tgt, tgt_mask)
        languages = [self.languages.get(tag, self.language) for tag in batch.src[:, 0].tolist()]
        costs = self.costs(references, found, languages)
        return Task(seen, keys[rows, 0], lambda followed: self.loss(model, followed, seen, costs))

    def loss(
        self, model: EncoderDecoder, followed: Followed, seen: Batch, costs: Sequence[Tensor]
    ) -> Loss:
        """Return the loss, given the costs of each sentence; its `total` is of the references."""
        targets, mask = seen.tgt[seen.tgt_mask], seen.tgt_mask
        count, size = len(costs), int(mask[: len(costs)].sum())
        total, smoothed = model.output_loss(followed.t[:size], targets[:size], self.label_smoothing)

        # log p of every candidate, and the risk: sum_y q(y) cost(y), with q ~ p^sharpness
        log_p = log_probs(model, followed.t[size:], targets[size:])
        grid = log_p.new_zeros(mask[count:].shape).masked_scatter(mask[count:], log_p)
        of_sentences = grid.sum(dim=1).split([*map(len, costs)])
        risks = [
            (torch.softmax(self.own.sharpness * log_p, dim=0) * cost.to(log_p)).sum()
            for log_p, cost in zip(of_sentences, costs, strict=True)
        ]
        risk, weight = torch.stack(risks).sum(), self.own.weight
        mixed = weight * smoothed + (1 - weight) * risk
        return Loss(total, mixed, count, size)

    def candidates(self, model: EncoderDecoder, batch: Batch, keys: Tensor) -> list[list[Ids]]:
        """Search or sample translations without dropout; samples are drawn by keys (B,)."""
        training = model.training
        model.eval()
        try:
            # In full precision, so that batch mates hardly ever change a candidate.
            with torch.inference_mode():
                source, stepper = (batch.src, batch.src_mask), model.for_search()
                if self.own.candidates is Candidates.samples:
                    found = sample(stepper, *source, keys.tolist(), SamplingRules(self.rules))
                else:
                    found = beam_search(stepper, *source, self.rules)
        finally:
            model.train(training)
        return [[hypothesis.ids for hypothesis in each] for each in found]

    def costs(
        self,
        references: Sequence[Ids],
        found: Sequence[Sequence[Ids]],
        languages: Sequence[str],
    ) -> list[Tensor]:
        """Return 1 - score of the candidates of each sentence, compared as text of its language."""
        by_language = {
            language: sentence_score(self.own.score, (), self.bleu_tokenizer, language)
            for language in dict.fromkeys(languages)
        }
        costs = []
        rows = zip(map(self.text, references), found, languages, strict=True)
        for reference, each, language in rows:
            scores = [by_language[language](self.text(ids), reference) for ids in each]
            costs.append(1 - torch.tensor(scores, dtype=torch.float64) / 100)
        return costs

    def text(self, ids: Ids) -> str:
        """Return the text of ids."""
        return self.target.write(self.target.pieces([i for i in ids if i != EOS]))[0]


@builds(MinimumRiskConfig)
def minimum_risk(
    own: MinimumRiskConfig, cfg: Config, tokenizers: Sequence[Tokenizer]
) -> MinimumRisk:
    """Build it; lengths and forbidden words are those of `decode`, and tags are forbidden, too.

    Raises:
        ConfigError: the run does not start from a trained model.
    """
    if cfg.init.run is None:  # not in `check`: an exported model has no `init.run`
        what = "objective=minimum_risk is for a trained model, and init.run is not given"
        raise ConfigError("config", what, "Train with another objective, then give init.run=RUN.")
    tags, forbidden = (tag_ids(cfg.data.tags, tokenizer) for tokenizer in tokenizers)
    rules = replace(search_rules(cfg.decode), beam_size=own.count, n_best=own.count)
    return MinimumRisk(
        own,
        replace(rules, forbidden=(*rules.forbidden, *forbidden.values())),
        tokenizers[1],
        cfg.data.directions[0][1],
        {tag: language for language, tag in tags.items()},
        cfg.evaluate.bleu_tokenizer,
        cfg.trainer.label_smoothing,
    )
