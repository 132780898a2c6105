"""Lines with what is asked of their translations, as files and commands say it."""

import json
import re

import pytest
from runs import assert_fails, composed
from test_constraints import keeps

import seq2seq
from seq2seq import Request
from seq2seq.decoding.request import parse
from seq2seq.run.errors import ConfigError, DataError

WORDS = {"required": [["house", "houses"], ["big"]], "forbidden": ["small", "tiny"]}
WHOLE = Request("The house.", "La", True, **WORDS)


@pytest.mark.parametrize(
    ("form", "line", "expected"),
    [
        ("text", "a\tprefix=b", Request("a\tprefix=b")),
        ("tsv", "a", Request("a")),
        ("tsv", "", Request("")),
        ("tsv", "a=b\tprefix=c = d ", Request("a=b", "c = d ")),
        (
            "tsv",
            "The house.\tprefix=La\tcomplete_last_word=true\trequired=house|houses\tforbidden=small"
            "\trequired=big\tforbidden=tiny",
            WHOLE,
        ),
        ("jsonl", "", Request("")),
        ("jsonl", '{"source": "a", "forbidden": []}', Request("a")),
        (
            "jsonl",
            '{"source": "a", "required": ["b", ["c|d"]]}',
            Request("a", required=[["b"], ["c|d"]]),
        ),
        (
            "jsonl",
            json.dumps(
                {"source": "The house.", "prefix": "La", "complete_last_word": True} | WORDS
            ),
            WHOLE,
        ),
    ],
)
def test_a_line_of_each_form(form, line, expected):
    assert parse(line, form, "x:1") == expected


@pytest.mark.parametrize(
    ("form", "line", "message"),
    [
        ("tsv", "a\tb", "column 2 ('b') is not NAME=VALUE. Names are prefix, "),
        ("tsv", "a\tprefix=b\tlength=3", "column 3 ('length=3') is not NAME=VALUE"),
        ("tsv", "a\tprefix=", "column 2 ('prefix=') is not NAME=VALUE"),
        ("tsv", "a\tprefix=b\tprefix=c", "prefix is given twice. Give it once."),
        ("tsv", "a\tcomplete_last_word=yes", "complete_last_word is not true or false"),
        ("jsonl", "a", "is not valid JSON ("),
        ("jsonl", "[" * 100_000, "is not valid JSON ("),
        ("jsonl", '{"source": "\\ud800"}', "is not valid JSON ("),
        ("jsonl", '["a"]', "is not a JSON object"),
        ("jsonl", "{}", "source is not text"),
        ("jsonl", '{"source": 3}', "source is not text"),
        ("jsonl", '{"source": "a", "prefix": null}', "prefix is not text"),
        (
            "jsonl",
            '{"source": "a", "required": "b"}',
            "required is not a list of texts or of lists",
        ),
        ("jsonl", '{"source": "a", "required": [[3]]}', "required is not a list of texts or of"),
        ("jsonl", '{"source": "a", "forbidden": [["b"]]}', "forbidden is not a list of texts"),
        ("jsonl", '{"source": "a", "banned": ["b"]}', "unknown key 'banned'. Keys are source, "),
    ],
)
def test_a_malformed_line_is_named(form, line, message):
    error = parse(line, form, "in.x:7")
    assert isinstance(error, DataError)
    assert str(error).startswith(f"in.x:7: {message}")


@pytest.mark.parametrize("wrong", [{"required": "ab"}, {"required": ["ab"]}, {"forbidden": "ab"}])
def test_a_text_is_no_list_of_letters(wrong):
    assert not hasattr(seq2seq, "Requests")
    with pytest.raises(DataError, match=re.escape("required is a list of lists, forbidden a list")):
        Request("a", **wrong)


# A trained run ----------------------------------------------------------------------------------

ASKED = [
    Request("the cat sees the dog .", "ce chien"),
    Request("the boy helps the wolf .", required=[["marin", "chien"], ["souvent"]]),
    Request("the cat sees the dog again .", forbidden=["chat", "chien"]),
    Request("the teacher waits for the boy today .", "ce pro", True, [["chat"]], ["attend"]),
    Request(""),
    Request("the sailor hears the baker often ."),
]
TSV = """the cat sees the dog .\tprefix=ce chien
the boy helps the wolf .\trequired=marin|chien\trequired=souvent
the cat sees the dog again .\tforbidden=chat|chien
the teacher waits for the boy today .\tprefix=ce pro\tcomplete_last_word=true\trequired=chat\t\
forbidden=attend

the sailor hears the baker often .
"""


@pytest.mark.e2e
def test_files_streams_and_python_give_the_same(run, script, tmp_path):
    model = seq2seq.load(run, ["decode.n_best=3"])
    expected = model.translate(ASKED)
    assert [t.text != "" for t in expected] == [request.source != "" for request in ASKED]
    for request, t in zip(ASKED, expected, strict=True):
        assert all(keeps(c.text, request) for c in t.candidates), request
    named = ("source", "prefix", "complete_last_word", "required", "forbidden")
    objects = [{name: getattr(request, name) for name in named} for request in ASKED]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(o)}\n" for o in objects), "utf-8")
    args = (run, "--format", "jsonl", "decode.n_best=3", "--input-format")
    piped = script("decode", *args, "tsv", stdin=TSV.encode())
    filed = script("decode", *args, "jsonl", "--input", tmp_path / "in.jsonl")
    assert piped.code == filed.code == 0, piped.err + filed.err
    assert piped.out == filed.out
    own = [t.as_dict() | {"flags": model.flags(t)} for t in expected]
    assert [json.loads(line) for line in piped.out.splitlines()] == own


@pytest.mark.e2e
def test_wrong_lines_end_it_or_are_empty(run, script, tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text("the cat .\nthe dog .\tprefx=le\nthe boy .\n", "utf-8")
    args = ("decode", run, "--input-format", "tsv", "--input", path)
    assert_fails(script(*args), 3, f"{path}:2: column 2 ('prefx=le') is not NAME=VALUE")
    passed = script(*args, "--on-bad-line", "empty")
    assert [bool(line) for line in passed.out.decode().split("\n")[:-1]] == [True, False, True]
    path.write_text("the cat .\nthe dog .\trequired=\u732b\n", "utf-8")
    assert_fails(script(*args), 3, f"{path}:2: the target vocabulary cannot spell '\u732b'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["beam_groups=2"], "decode.beam_groups=2 and decode.diversity=0 cannot be combined"),
        (["diversity=0.5"], "decode.beam_groups=1 and decode.diversity=0.5 cannot be combined"),
        (["beam_groups=11", "diversity=1"], "decode.beam_groups=11 is above decode.beam_size=10"),
        (["sample=true", "no_repeat_ngram=3"], "decode.no_repeat_ngram is for beam search"),
        (["sample=true", "beam_groups=2", "diversity=1"], "decode.beam_groups is for beam search"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        composed("quickstart", ["decode.beam_size=10", *(f"decode.{change}" for change in changes)])
