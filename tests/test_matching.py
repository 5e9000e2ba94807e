from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SHARED
from selmem.annotation import split_documents
from selmem.corpora import read_documents
from selmem.documents import Document, Word
from selmem.measurement.matching import match_chunks
from selmem.measurement.placement import pretoken_ends, token_spans, word_spans
from selmem.tokenization import load_tokenizer
from small_corpora import chunks_of
from small_tokenizers import byte_level

TOKENIZER = byte_level()
NFC_TOKENIZER = byte_level(nfc=True, trim_offsets=True, split_digits=True, space_tokens=True)
RULES = ("omitted_count", "omitted_aligned", "omitted_forced")


@pytest.fixture(scope="module")
def neox():
    path = SHARED / "data" / "tokenizer" / "tokenizer.json"
    if not path.exists():
        pytest.skip("the GPT-NeoX tokenizer is not beside this checkout")
    return load_tokenizer(path)


def annotated_chunks(text, words, length, tokenizer=TOKENIZER):
    spans, start = [], 0
    for word in words:
        start = text.index(word, start)
        spans.append(Word(start=start, end=start + len(word), kind="word"))
        start += len(word)
    document = Document(doc_id="d", source="s", text=text, words=tuple(spans))
    return chunks_of(document, tokenizer, length)


def match_oracle(chunks, tokenizer):
    ids = [chunk.token_ids for chunk in chunks]
    return match_chunks(chunks, ids, [np.array(row) for row in ids], tokenizer, chance_draws=0)


@pytest.mark.parametrize(
    ("corpus", "length"),
    [("conll2003/eng.testb", 256), ("conll2003/eng.testb", 16)]
    + [("ud_ewt/en_ewt-ud-test.conllu", length) for length in (4, 64)],
)
def test_oracle_omits_nothing_and_silence_everything(shared_data, neox, corpus, length):
    documents = read_documents(str(shared_data(corpus)))
    chunks = [chunk for document in documents for chunk in chunks_of(document, neox, length)][:2000]
    assert sum(word.cut for chunk in chunks for word in chunk.words) > 0
    for matched in match_oracle(chunks, neox):
        for rule in RULES:
            assert not getattr(matched, rule).any()
        assert matched.aligned.all()
    silent = [np.full(length, -1)] * len(chunks)
    for matched in match_chunks(chunks, [[]] * len(chunks), silent, neox, chance_draws=0):
        for rule in RULES:
            assert np.all(getattr(matched, rule) == 1)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, NFC_TOKENIZER], ids=["plain", "nfc"])
@given(st.text(min_size=3), st.integers(2, 9))
@settings(max_examples=150, deadline=None)
def test_oracle_omits_nothing_of_random_text(tokenizer, text, length):
    [document] = split_documents([Document(doc_id="d", source="s", text=text)])
    chunks = chunks_of(document, tokenizer, length)
    for chunk, matched in zip(chunks, match_oracle(chunks, tokenizer), strict=True):
        assert matched.text == chunk.text
        for rule in RULES:
            assert not getattr(matched, rule).any()


@pytest.mark.parametrize("substitute", [False, True], ids=["delete", "substitute"])
def test_planted_losses_are_counted_exactly(shared_data, neox, substitute):
    documents = read_documents(str(shared_data("ud_ewt/en_ewt-ud-dev.conllu")))
    chunks = [chunk for document in documents for chunk in chunks_of(document, neox, 64)][:150]
    filler = neox(" zebra", add_special_tokens=False)["input_ids"]
    planted, written, guesses = Counter(), [], []
    for chunk in chunks:
        assert "zebra" not in chunk.text
        assert not set(filler) & set(chunk.token_ids)
        losses = [word for word in removable(chunk, neox)][::2]
        planted.update(word.pos for word in losses)
        ids, guess = list(chunk.token_ids), np.array(chunk.token_ids)
        for word in reversed(losses):
            ids[word.token_start : word.token_end] = filler if substitute else []
            guess[word.token_start] += 1
        written.append(ids)
        guesses.append(guess)
    assert sum(planted.values()) > 500
    assert len(planted) > 8
    matched = match_chunks(chunks, written, guesses, neox, chance_draws=0)
    for rule in RULES:
        counted = Counter()
        for chunk, match in zip(chunks, matched, strict=True):
            for word, omitted in zip(chunk.words, getattr(match, rule).tolist(), strict=True):
                counted[word.pos] += omitted
        assert +counted == planted


def removable(chunk, tokenizer):
    """Yield words that stand alone: own tokens, spaces around, nothing like them elsewhere."""
    tokens = Counter(chunk.token_ids)
    for word, (start, end) in zip(chunk.words, word_spans(tokenizer, chunk), strict=True):
        own = chunk.token_ids[word.token_start : word.token_end]
        spaced = chunk.text[max(start - 1, 0)] == " " and chunk.text[end : end + 1] == " "
        spaced = (
            spaced and chunk.text[start - 2 : start - 1].strip() and chunk.text[end + 1].strip()
        )
        covered = token_spans(tokenizer, chunk.text, own and chunk.token_ids)[word.token_start]
        alone = covered[0] == start - 1 and all(tokens[token] == 1 for token in own)
        if spaced and alone and not word.cut and chunk.text.count(word.text) == 1:
            yield word


def test_words_are_placed_where_they_stand_in_the_chunk():
    text = "I don't, don't I? naïve 😀 x2"
    words = ["I", "do", "n't", ",", "do", "n't", "I", "?", "naïve", "😀", "x2"]
    for tokenizer in (TOKENIZER, NFC_TOKENIZER):
        for length in (len(tokenizer(text)["input_ids"]), 6):
            for chunk in annotated_chunks(text, words, length, tokenizer):
                spans = word_spans(tokenizer, chunk)
                for word, (start, end) in zip(chunk.words, spans, strict=True):
                    assert word.cut or chunk.text[start:end] == word.text
                assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_words_are_placed_though_the_tokenizer_normalises_them():
    decomposed = "cafe\N{COMBINING ACUTE ACCENT} au lait"
    [chunk] = annotated_chunks(
        decomposed, decomposed.split(), len(NFC_TOKENIZER(decomposed)["input_ids"]), NFC_TOKENIZER
    )
    assert chunk.text == "café au lait"
    assert word_spans(NFC_TOKENIZER, chunk) == [(0, 4), (5, 7), (8, 12)]


def test_words_inside_one_token_are_told_apart(neox):
    dots = ["wait", ".", ".", "."]
    [chunk] = annotated_chunks("wait...", dots, 2, neox)
    assert word_spans(neox, chunk) == [(0, 4), (4, 5), (5, 6), (6, 7)]
    decomposed = "e\N{COMBINING ACUTE ACCENT}"
    text = f"{decomposed}t{decomposed}"
    [chunk] = annotated_chunks(text, [decomposed, "t", decomposed], 1, neox)
    assert chunk.text == "été"
    assert word_spans(neox, chunk) == [(0, 1), (1, 2), (2, 3)]


def test_of_a_cut_word_the_part_inside_is_placed():
    text = "aa 😀😀 bb"
    tokens = TOKENIZER(text)["input_ids"]
    assert len(tokens) > 6
    chunks = annotated_chunks(text, ["aa", "😀😀", "bb"], 5)
    [first, *_] = chunks
    assert first.words[-1].cut
    (_, _), (start, end) = word_spans(TOKENIZER, first)
    assert (start, end) == (3, len(first.text))


def test_token_spans_cover_the_text():
    text = "naïve 😀 x"
    ids = TOKENIZER(text)["input_ids"]
    spans = token_spans(TOKENIZER, text, ids)
    assert len(spans) == len(ids)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert {index for start, end in spans for index in range(start, end)} == set(range(len(text)))


def test_pretokens_cover_the_text():
    assert pretoken_ends(TOKENIZER, "I don't") == [1, 5, 7]
    assert pretoken_ends(TOKENIZER, "") == []


def test_chance_is_absent_for_one_document():
    chunks = annotated_chunks("aa bb aa bb", ["aa", "bb", "aa", "bb"], 2)
    ids = [chunk.token_ids for chunk in chunks]
    [matched, *_] = match_chunks(chunks, ids, [np.array(row) for row in ids], TOKENIZER)
    assert matched.chance_count is None
    assert matched.chance_aligned is None
