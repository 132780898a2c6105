"""The sentences of Figure 3: the paper's text, and pictures of the right weights."""

import io
import logging

import matplotlib.image
import numpy as np
import pytest
from runs import config_of, copy_of

from seq2seq.config.compose import to_config
from seq2seq.data.word_vocabulary import Moses
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translation import END
from seq2seq.evaluation import figures as pictures
from seq2seq.evaluation.figures import draw_examples, examples_of
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import to_json

pytestmark = pytest.mark.e2e

AS_PRINTED = {
    # Tokenised, as Figure 3 shows it: source along the top, translation down the side.
    "a": (
        "The agreement on the European Economic Area was signed in August 1992 .",
        "L' accord sur la zone économique européenne a été signé en août 1992 .",
    ),
    "b": (
        "It should be noted that the marine environment is the least known of environments .",
        "Il convient de noter que l' environnement marin est le moins connu de l' environnement .",
    ),
    "c": (
        "Destruction of the equipment means that Syria can no longer produce new chemical weapons "
        ".",
        "La destruction de l' équipement signifie que la Syrie ne peut plus produire de nouvelles "
        "armes chimiques .",
    ),
    "d": (
        '" This will change my future with my family , " the man said .',
        '" Cela va changer mon avenir avec ma famille " , a dit l\' homme .',
    ),
}


def test_text_is_the_papers_but_for_blanks():
    examples = {label: sides for label, *sides in examples_of("figure3")}
    assert examples.keys() == AS_PRINTED.keys()
    for label, sides in AS_PRINTED.items():
        for found, printed in zip(examples[label], sides, strict=True):
            assert found.replace(" ", "") == printed.replace(" ", "")
            # Text as people write it: nothing stands apart that a tokeniser would cut off.
            assert not [word for word in found.split() if not any(map(str.isalnum, word))]
            assert "' " not in found


@pytest.mark.parametrize(("side", "language"), [(0, "en"), (1, "fr")])
def test_moses_makes_the_papers_tokens_of_it(side, language):
    moses = Moses(language)
    for label, *sides in examples_of("figure3"):
        text = sides[side]
        assert moses.words(text) == AS_PRINTED[label][side].split()
        assert moses.join(moses.words(text)) == text


@pytest.mark.e2e
def test_four_sentences_are_drawn_twice(run, tmp_path, caplog, monkeypatch):
    folder = RunDir.open(copy_of(run, tmp_path / "run"))
    changes = ["decode.max_source_tokens=30", "evaluate.heatmap_words=false"]
    cfg = to_config(to_json(config_of(run)), ["evaluate.examples=[figure3]", *changes])
    drawn = []
    real = pictures.plot_alignment

    def spy(alpha, source, target, **options):
        drawn.append((alpha, tuple(source), tuple(target)))
        return real(alpha, source, target, **options)

    monkeypatch.setattr(pictures, "plot_alignment", spy)
    with caplog.at_level(logging.INFO, "seq2seq.evaluation.figures"):
        found = dict(pictures.drawn(draw_examples(cfg, folder)))
    assert list(found) == [
        f"heatmaps/figure3-{x}{end}.png" for x in "abcd" for end in ("", "-paper")
    ]
    for png in found.values():
        picture = matplotlib.image.imread(io.BytesIO(png))
        assert min(picture.shape[:2]) > 100
    texts = [record.getMessage() for record in caplog.records]
    said = [text for text in texts if text.startswith("figure3-")]
    expected = Pretrained(folder, cfg)
    for (label, source_text, target_text), line, own, paper in zip(
        examples_of("figure3"), said, drawn[::2], drawn[1::2], strict=True
    ):
        [translation] = expected.translate([source_text])  # 30 source tokens and the end symbol
        assert line == f"figure3-{label}: {translation.text}"
        [forced] = expected.force([(source_text, target_text)])
        for (alpha, source, target), found in ((own, translation), (paper, forced)):
            assert (source, target) == (found.source_tokens, found.candidates[0].tokens)
            assert source[-1] == target[-1] == END
            np.testing.assert_array_equal(alpha, found.alignment)
        assert own[1] == paper[1]
        assert len(own[1]) == 31
        assert forced.text == target_text
