import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from rules_ref import count_ref, kth_occurrence_omissions
from selmem.omission_rate.alignment import (
    TokenWords,
    align,
    align_ref,
    aligned_omissions,
    any_missed,
)
from selmem.omission_rate.chance import chance_rates, derangements
from selmem.omission_rate.rules import Pretokens, Reference, count_omissions, split_words

SPLITTER = pre_tokenizers.ByteLevel(add_prefix_space=False)


def pieces_of(text):
    return [text[start:end] for _, (start, end) in SPLITTER.pre_tokenize_str(text)]


def pretokens_of(text):
    return Pretokens.of_text(text, [end for _, (_, end) in SPLITTER.pre_tokenize_str(text)])


def reference_of(text, words, cut=None):
    spans, start = [], 0
    for word in words:
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return Reference.of_spans(pretokens_of(text), spans, cut)


def rates_of(text, words, other, cut=None):
    return count_omissions([reference_of(text, words, cut)], [pretokens_of(other)])[0].tolist()


@st.composite
def tagged_texts(draw):
    """A text, spans of words in it, and whether each is cut."""
    text = draw(st.text(alphabet="ab'.t \n-7é", min_size=1, max_size=24))
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    spans = [(a, b) for a, b in pairwise(ends) if draw(st.booleans())]
    return text, spans, [draw(st.booleans()) for _ in spans]


WORDS = st.lists(st.sampled_from("abcde"), max_size=14)


def test_words_share_the_omission_of_their_surface():
    rates = rates_of("the cat saw the dog", ["the", "cat", "saw", "the", "dog"], " dog and the dog")
    assert rates == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_words_inside_one_pretoken_are_found_together_or_not_at_all():
    text, words = 'I don\'t, "she said"', ["I", "do", "n't", ",", '"', "she", "said", '"']
    assert rates_of(text, words, text) == [0.0] * 8
    assert rates_of(text, words, 'I do not, "she said') == [0, 1, 1, 0, 0.5, 0, 0, 0.5]


def test_match_must_start_and_end_at_pretoken_boundaries():
    assert rates_of("he is at it", ["he", "is", "at", "it"], "the island hat bit") == [1.0] * 4
    assert rates_of("at it", ["at", "it"], "at-it") == [0.0, 0.0]


def test_each_pretoken_serves_one_word():
    text, words = "the U.S. S.", ["the", "U.S.", "S."]
    assert rates_of(text, words, text) == [0.0] * 3
    assert rates_of(text, words, "the U.S.") == [0.0, 0.0, 1.0]


def test_surface_is_found_however_the_pretokenizer_cuts_it():
    assert pieces_of(" 's") == [" '", "s"]
    assert pieces_of("John's") == ["John", "'s"]
    assert rates_of("John 's", ["John", "'s"], "John's") == [0.0, 0.0]


def test_long_units_are_found_before_the_short_ones_inside_them():
    assert rates_of("a . b U.S.", ["a", ".", "b", "U.S."], "U.S. x") == [1.0, 1.0, 1.0, 0.0]


def test_cut_words_take_only_what_whole_words_leave():
    text, words, cut = "the cat the", ["the", "cat", "the"], [True, False, False]
    assert rates_of(text, words, text, cut) == [0.0, 0.0, 0.0]
    assert rates_of(text, words, "the cat", cut) == [1.0, 0.0, 0.0]


def test_white_space_inside_a_words_span_is_not_looked_for():
    text = "the end .\n\nNew"
    reference = Reference.of_spans(pretokens_of(text), [(0, 4), (4, 8), (8, 11)])
    assert [unit.surface for unit in reference.units] == ["the", "end", "."]
    assert count_omissions([reference], [pretokens_of("the end.")])[0].tolist() == [0.0] * 3


def test_characters_of_no_word_belong_to_the_unit_of_their_pretoken():
    assert rates_of("see abc", ["see", "ab"], "see abc") == [0.0, 0.0]
    assert rates_of("see abc", ["see", "ab"], "see ab") == [0.0, 1.0]


@given(tagged_texts(), st.text(alphabet="ab'.t \n-7é", max_size=24))
@settings(max_examples=500, deadline=None)
def test_count_matches_reference(tagged, other):
    text, spans, cut = tagged
    fast = count_omissions(
        [Reference.of_spans(pretokens_of(text), spans, cut)], [pretokens_of(other)]
    )[0]
    slow = count_ref(pieces_of(text), spans, cut, pieces_of(other))
    np.testing.assert_allclose(fast, slow, atol=1e-6)
    assert np.all((fast >= 0) & (fast <= 1))


@given(tagged_texts())
@settings(max_examples=200, deadline=None)
def test_identical_text_has_no_omission_and_empty_text_nothing_else(tagged):
    text, spans, cut = tagged
    reference = Reference.of_spans(pretokens_of(text), spans, cut)
    same, empty = count_omissions([reference] * 2, [pretokens_of(text), pretokens_of("")])
    assert same.tolist() == [0.0] * len(spans)
    assert empty.tolist() == [1.0] * len(spans)


@given(st.text(min_size=1))
@settings(deadline=None)
def test_identical_random_unicode_has_no_omission(text):
    ends = [end for _, (_, end) in SPLITTER.pre_tokenize_str(text)]
    pretokens = Pretokens.of_text(text, sorted(set(ends)))
    spans = [(i, i + 1) for i in range(len(text))]
    reference = Reference.of_spans(pretokens, spans)
    assert not count_omissions([reference], [pretokens])[0].any()


@given(WORDS, WORDS)
@settings(max_examples=300, deadline=None)
def test_total_equals_the_papers_rule_when_every_word_is_one_pretoken(words, others):
    reference = reference_of(" ".join(words), words)
    rates = count_omissions([reference], [pretokens_of(" ".join(others))])[0]
    assert np.sum(rates, dtype=float) == pytest.approx(
        kth_occurrence_omissions(words, others), abs=1e-5
    )


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
@settings(max_examples=200, deadline=None)
def test_alignment_matches_reference(pairs):
    references = [[ord(word) for word in words] for words, _ in pairs]
    others = [[ord(word) for word in words] for _, words in pairs]
    fast, slow = align(references, others), align_ref(references, others)
    assert [row.tolist() for row in fast] == [row.tolist() for row in slow]


def test_alignment_prefers_the_smallest_shifts():
    assert align([[7, 1, 7]], [[1, 7]])[0].tolist() == [-1, 0, 1]
    assert align([[7, 8, 7]], [[7]])[0].tolist() == [0, -1, -1]
    assert align([[5, 7, 6, 7]], [[0, 0, 0, 7]])[0].tolist() == [-1, -1, -1, 3]


def test_alignment_in_batches_equals_one_pair_at_a_time(monkeypatch):
    generator = np.random.default_rng(0)
    references = [generator.integers(0, 9, n).tolist() for n in generator.integers(0, 40, 30)]
    others = [generator.integers(0, 9, n).tolist() for n in generator.integers(0, 40, 30)]
    singly = [align([a], [b])[0].tolist() for a, b in zip(references, others, strict=True)]
    monkeypatch.setattr("selmem.omission_rate.alignment.BATCH_CELLS", 3000)
    assert [row.tolist() for row in align(references, others)] == singly


def test_alignment_of_texts_beyond_memory_is_refused():
    with pytest.raises(ValueError, match="100000 and a prediction of 100000 elements are too long"):
        align([range(100_000)], [range(100_000)])


def test_word_is_omitted_when_any_token_is():
    reference = TokenWords([1, 2, 3, 4], [(0, 2), (1, 3), (3, 4)])
    identical, broken, empty = aligned_omissions([reference] * 3, [[1, 2, 3, 4], [1, 3, 4, 9], []])
    assert identical.tolist() == [False, False, False]
    assert broken.tolist() == [True, True, False]
    assert empty.tolist() == [True, True, True]


def test_token_spans_outside_of_the_text_are_an_error():
    with pytest.raises(ValueError, match="among the 2 of its text"):
        any_missed(np.array([True, False]), [(0, 3)])


def test_character_spans_outside_of_the_text_are_an_error():
    with pytest.raises(ValueError, match=r"word 0 has the span \(1, 9\), outside of the text"):
        Reference.of_spans(pretokens_of("abc"), [(1, 9)])
    with pytest.raises(ValueError, match="pre-token ends must increase up to the 3 characters"):
        Pretokens.of_text("abc", [2, 2])
    with pytest.raises(ValueError, match="word 1 is empty"):
        Pretokens.of_words(["a", ""])


@pytest.mark.parametrize(
    "documents",
    [list("aabbccdd"), list("aaabbb"), list("aaaab"), list(range(7)), ["x", "y"]],
    ids=["pairs", "halves", "majority", "singles", "two"],
)
def test_chance_never_pairs_a_chunk_with_its_own_document(documents):
    donors = derangements(documents, draws=50, seed=1)
    assert donors.shape == (50, len(documents))
    for row in donors:
        assert all(documents[i] != documents[j] for i, j in enumerate(row))
    assert np.array_equal(donors, derangements(documents, draws=50, seed=1))
    if documents != list("aaaab"):
        assert all(sorted(row) == list(range(len(documents))) for row in donors)


def test_chance_of_many_documents_uses_many_donors():
    donors = derangements(list(range(40)), draws=10, seed=0)
    assert np.mean([len(set(column)) for column in donors.T]) > 8


def test_one_document_has_no_chance_rate():
    assert derangements(["a", "a"]) is None


def test_chance_is_the_mean_over_donors():
    references = [Reference.of_words(["a", "b"]), Reference.of_words(["b"])]
    texts = [Pretokens.of_words(["a"]), Pretokens.of_words(["b"])]
    rates = chance_rates(count_omissions, references, texts, np.array([[1, 0], [0, 0], [1, 0]]))
    np.testing.assert_allclose(rates[0], [2 / 3, 1 / 3], rtol=1e-6)
    assert rates[1].tolist() == [1.0]


def test_splitter_keeps_every_visible_character():
    assert split_words("don't  stop_now (3.5€)") == [
        *["don", "'", "t", "stop_now", "(", "3", ".", "5", "€", ")"]
    ]


def test_count_scores_a_million_words_a_minute():
    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{n % 800}" for n in generator.zipf(1.2, 200)) + "." for _ in range(200)]
    references = [reference_of(text, text.replace(".", " .").split()) for text in texts]
    others = [pretokens_of(text) for text in texts[1:] + texts[:1]]
    start = time.process_time()
    count_omissions(references, others)
    assert 200 * 201 / (time.process_time() - start) * 60 > 1_000_000


def test_alignment_scores_a_thousand_long_chunks_a_minute():
    generator = np.random.default_rng(0)
    references = [generator.integers(0, 900, 256).tolist() for _ in range(100)]
    others = [[*row[::2], *row[::2], *range(16)] for row in references]
    start = time.process_time()
    align(references, others)
    assert 100 / (time.process_time() - start) * 60 > 1_000
