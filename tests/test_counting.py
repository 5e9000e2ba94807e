import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selmem.corpora import read_documents
from selmem.counting import _PIECE, count_texts, tokenizes_by_pieces
from selmem.segmentation import split_words
from selmem.tokenization import load_tokenizer, plain_backend
from small_tokenizers import TEXT, byte_level

TOKENIZERS = {
    "gpt2": byte_level(),
    "neox": byte_level(nfc=True, trim_offsets=True, space_tokens=True),
    "digits": byte_level(split_digits=True),
}

# what borders of pieces, normalization and added tokens could go wrong on
TRICKY = st.lists(
    st.sampled_from(
        [*"aZé1½ \t\n\r'-.,(=<|>_~\u0301\u0338\u00a0\u2003\x1c\x85\u3000字🦊", "  ", "    ", "'s"]
    )
    | st.characters(exclude_categories=["Cs"])
).map("".join)


def direct_counts(texts, tokenizer):
    backend = plain_backend(tokenizer)
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    for text in texts:
        np.add.at(counts, backend.encode(text, add_special_tokens=False).ids, 1)
    return counts


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TRICKY, max_size=4))
def test_counts_are_those_of_whole_texts(name, texts):
    tokenizer = TOKENIZERS[name]
    counts = count_texts(texts, tokenizer, max_pieces=3)
    assert tokenizes_by_pieces(tokenizer)
    np.testing.assert_array_equal(counts.token_counts, direct_counts(texts, tokenizer))
    words = [word for text in texts for word in split_words(text)]
    assert counts.n_words == len(words) == sum(counts.word_counts.values())
    assert all(words.count(word) == count for word, count in counts.word_counts.items())
    assert (counts.n_documents, counts.word_count_error) == (len(texts), 0)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200, deadline=None)
@given(text=TRICKY)
@example(text="\u00a0  b")
@example(text="\u00a0  ")
@example(text="a\u2003 \n b\t\x1c c")
def test_pieces_are_cut_only_where_the_tokenizer_cuts_too(name, text):
    pre_tokenizer = TOKENIZERS[name].backend_tokenizer.pre_tokenizer

    def cut(part):
        return [token for token, _ in pre_tokenizer.pre_tokenize_str(part)]

    pieces = _PIECE.findall(text)
    assert "".join(pieces) == text
    assert [token for piece in pieces for token in cut(piece)] == cut(text)


def other_tokenizer(change):
    tokenizer = byte_level()
    change(tokenizer.backend_tokenizer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)


def set_prefix_space(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def set_lower_case(backend):
    backend.normalizer = normalizers.Lowercase()


def set_no_pattern(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def add_token_with_space(backend):
    backend.add_tokens([AddedToken("of the")])


def add_token_that_strips(backend):
    backend.add_tokens([AddedToken("fox", rstrip=True)])


@pytest.mark.parametrize(
    "change",
    [
        set_prefix_space,
        set_lower_case,
        set_no_pattern,
        add_token_with_space,
        add_token_that_strips,
    ],
)
def test_a_tokenizer_that_looks_across_pieces_gets_whole_texts(change):
    tokenizer = other_tokenizer(change)
    assert not tokenizes_by_pieces(tokenizer)
    texts = [TEXT, "of the fox  of the 1,234 fox's\n"]
    counts = count_texts(texts, tokenizer)
    np.testing.assert_array_equal(counts.token_counts, direct_counts(texts, tokenizer))


def test_rare_words_are_dropped_with_a_bound_that_holds():
    rng = np.random.default_rng(0)
    drawn = [f"w{n}" for n in rng.zipf(1.3, 20_000)]
    counts = count_texts(
        [" ".join(drawn[i : i + 200]) for i in range(0, 20_000, 200)],
        TOKENIZERS["gpt2"],
        max_words=300,
        max_pieces=100,
    )
    assert len(counts.word_counts) <= 300
    assert 0 < counts.word_count_error < 100
    assert counts.n_words == 20_000
    for word in set(drawn):
        missing = drawn.count(word) - counts.word_counts.get(word, 0)
        assert 0 <= missing <= counts.word_count_error


def test_memory_does_not_grow_with_the_corpus():
    def texts(n_texts):
        rng = np.random.default_rng(0)
        for _ in range(n_texts):
            yield " ".join(f"w{n}" for n in rng.integers(0, 10**9, 200))

    def peak(n_texts):
        tracemalloc.start()
        count_texts(texts(n_texts), TOKENIZERS["gpt2"], max_words=1_000, max_pieces=1_000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(150) < 1.2 * peak(30)


def test_the_real_tokenizer_counts_code_as_it_does_whole(shared_data):
    tokenizer = load_tokenizer(shared_data("tokenizer"))
    documents = read_documents(str(shared_data("domains/github_code.eval.jsonl")))
    texts = [document.text for document, _ in zip(documents, range(25), strict=False)]
    counts = count_texts(texts, tokenizer)
    np.testing.assert_array_equal(counts.token_counts, direct_counts(texts, tokenizer))
