import json

import pytest

from selmem.errors import InputError
from selmem.hub.known_sentences import KNOWN_SENTENCES
from selmem.reconstruct import reconstruct
from tiny_release import make_release

TEXT = "It costs 3.5 dollars, don't you see?"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    release = make_release(tmp_path_factory.mktemp("release"))
    return {
        "encoder": str(release.encoder),
        "probe": str(release.probe),
        "null_probe": str(release.null_probe),
    }


@pytest.fixture(scope="module")
def result(models):
    return reconstruct(TEXT, **models)


def test_words_are_those_of_the_text(result):
    words = ["It", "costs", "3.5", "dollars", ",", "do", "n't", "you", "see", "?"]
    assert [word.text for word in result.words] == words
    assert [TEXT[word.start : word.end] for word in result.words] == words
    assert result.words[2].kind == "number"
    assert result.text == TEXT


def test_omitted_words_stand_in_brackets(result):
    shown = result.to_text()
    line = shown.splitlines()[0]
    for word in result.words:
        assert (f"[{word.text}]" in line) == word.omitted_aligned
    assert line.replace("[", "").replace("]", "") == TEXT
    assert f"reconstruction: {result.reconstruction}" in shown
    assert "not recovered by this probe" in shown


def test_brackets_count_the_omitted_words(models):
    for sentence in ("The old bridge", *KNOWN_SENTENCES[:3]):
        result = reconstruct(sentence, **models)
        omitted = sum(word.omitted_aligned for word in result.words)
        assert result.to_text().splitlines()[0].count("[") == omitted
        assert result.omission_rate["aligned"] == omitted / len(result.words)


def test_bits_of_words_add_up_where_no_token_is_shared(models):
    result = reconstruct(KNOWN_SENTENCES[1], **models)
    assert sum(word.recovered_bits for word in result.words) == pytest.approx(
        result.recovered_bits, abs=1e-3
    )


def test_bits_are_listed_word_by_word(result):
    table = result.to_text(bits=True).splitlines()
    assert table[-len(result.words) - 1].split() == ["word", "null", "probe", "recovered"]
    assert len(table) == len(result.to_text().splitlines()) + 2 + len(result.words)


def test_without_null_probe_there_are_no_recovered_bits(models):
    result = reconstruct(TEXT, encoder=models["encoder"], probe=models["probe"])
    assert result.recovered_bits is None
    assert all(word.recovered_bits is None for word in result.words)
    assert "recovers" not in result.to_text().splitlines()[3]
    assert result.to_text(bits=True).splitlines()[-1].split()[1] == "-"


def test_json_holds_every_field(result):
    stored = json.loads(result.to_json())
    assert stored["text"] == TEXT
    assert stored["encoder"] == "mamba-tiny"
    assert stored["words"][0]["text"] == "It"
    assert set(stored["omission_rate"]) == {"count", "aligned", "forced"}


@pytest.mark.parametrize(
    ("text", "message"),
    [(" \n", "the text is empty"), ("dog " * 40, "probe was trained for up to 32; give a shorter")],
    ids=["empty", "long"],
)
def test_text_of_no_use_is_refused(models, text, message):
    with pytest.raises(InputError, match=message):
        reconstruct(text, **models)


def test_encoder_and_probe_come_together(models):
    with pytest.raises(InputError, match="--encoder and --probe together"):
        reconstruct(TEXT, encoder=models["encoder"])
