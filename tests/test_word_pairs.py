import random
from dataclasses import replace

import numpy as np
import pytest

from selmem.corpora import read_documents
from selmem.corpus_building import build_store
from selmem.documents import Document, Word
from selmem.errors import InputError
from selmem.word_pairs import (
    Candidate,
    WordPair,
    WordSwap,
    choose_pairs,
    choose_passages,
    count_words,
    find_candidates,
    read_pairs,
    word_classes,
    write_pairs,
)
from small_corpus import SYLLABLES, small_texts, small_tokenizer, write_corpus

PAIR = WordPair(first="cat", second="dog", pos="NOUN", n_tokens=1, first_count=9, second_count=9)


def candidates(n=200, seed=0):
    """Return words of two classes and one or two tokens, with counts spread over a decade."""
    draw = random.Random(seed)
    return [
        Candidate(
            word="".join(draw.choices("abcdefgh", k=8)),
            pos=draw.choice(["NOUN", "VERB"]),
            token_ids=tuple(draw.sample(range(1000), draw.choice([1, 2]))),
            count=round(10 ** draw.uniform(2, 3)),
        )
        for _ in range(n)
    ]


def test_words_of_a_pair_are_alike_and_share_no_token():
    given = {one.word: one for one in candidates()}
    pairs = choose_pairs(given.values(), 30)
    words = [word for pair in pairs for word in (pair.first, pair.second)]
    assert len(set(words)) == 60
    for pair in pairs:
        first, second = given[pair.first], given[pair.second]
        assert (pair.pos, pair.n_tokens) == (first.pos, len(first.token_ids))
        assert (second.pos, len(second.token_ids)) == (first.pos, len(first.token_ids))
        assert not set(first.token_ids) & set(second.token_ids)
        ratio = first.count / second.count
        assert 1 / 1.1 <= ratio <= 1.1
    # which word stands first must not depend on which is more frequent
    assert 5 < sum(pair.first_count > pair.second_count for pair in pairs) < 25


def test_choice_depends_on_the_seed_and_not_on_the_order():
    given = candidates()
    assert choose_pairs(given, 20) == choose_pairs(reversed(given), 20)
    assert choose_pairs(given, 20) != choose_pairs(given, 20, seed=1)


def test_too_few_pairs_are_an_error():
    with pytest.raises(InputError, match="pairs of words are alike, 500 are wanted"):
        choose_pairs(candidates(), 500)


def test_pairs_survive_writing_and_reading(tmp_path):
    pairs = choose_pairs(candidates(), 5)
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="holds no word pairs"):
        read_pairs(tmp_path / "other.jsonl")


def test_words_are_counted_whole_and_in_lower_case():
    assert count_words(["the Cat, the cat_x cat's cats can't 3cat", "cat"]) == {
        "the": 2,
        "cat": 2,
        "cats": 1,
        "can": 1,
    }


def test_class_of_a_word_is_the_one_that_it_nearly_always_has():
    def document(word, pos, n):
        words = tuple(
            Word(start=5 * i, end=5 * i + 4, pos=pos, kind="word", entity=None) for i in range(n)
        )
        return Document(doc_id=f"{word}{pos}", source="s", text=f"{word} " * n, words=words)

    found = word_classes(
        [
            document("bank", "NOUN", 9),
            document("bank", "VERB", 1),
            document("walk", "NOUN", 5),
            document("walk", "VERB", 5),
            document("seen", "VERB", 9),
        ]
    )
    assert found == {"bank": "NOUN"}


def test_candidates_are_of_open_classes_and_of_the_wanted_frequency():
    class Tokenizer:
        def __call__(self, text, add_special_tokens):
            assert not add_special_tokens
            return {"input_ids": [len(text)] * (4 if "long" in text else 1)}

    found = find_candidates(
        {"cat": 50, "rare": 5, "often": 500, "the": 50, "long": 50, "untagged": 50},
        {"cat": "NOUN", "rare": "ADJ", "often": "ADV", "the": "DET", "long": "ADJ"},
        Tokenizer(),
        least=10,
        most=100,
    )
    assert found == [Candidate(word="cat", pos="NOUN", token_ids=(4,), count=50)]


def test_nine_in_ten_occurrences_are_replaced_and_nothing_else():
    swap = WordSwap.of_corpus("A", [PAIR])
    text = "the cat saw a dog, a Cat and cats; " * 500
    changed = swap(text)
    counts = count_words([changed])
    assert counts["cat"] + counts["dog"] == 1000
    assert 0.87 < 1 - counts["cat"] / 500 < 0.93
    assert swap.n_replaced == {"cat": 500 - counts["cat"]}
    back = changed.replace("dog", "cat")
    assert back == text.replace("dog", "cat")
    assert swap(text) == changed
    assert replace(swap, seed=1)(text) != changed


def test_the_other_corpus_has_the_reverse():
    counts = count_words([WordSwap.of_corpus("B", [PAIR])("cat dog " * 500)])
    assert counts["cat"] > 920
    assert counts["dog"] < 80


def small_world(folder):
    """Return the documents, the source, the tokenizer and pairs of its words."""
    draw = random.Random(1)
    words = ["".join(draw.sample(SYLLABLES, 2)) for _ in range(40)]
    texts = [*small_texts(10), *(" ".join(draw.choices(words, k=80)) for _ in range(40))]
    source = "small=" + write_corpus(folder / "corpus.jsonl", texts)
    counts = count_words(texts)
    tokenizer = small_tokenizer(texts)
    classes = {word: "NOUN" for word in words}
    found = find_candidates(counts, classes, tokenizer, least=20, most=200)
    return source, tokenizer, choose_pairs(found, 6, max_ratio=1.3)


def test_both_corpora_hold_out_the_same_documents_and_have_the_same_sizes(tmp_path):
    source, tokenizer, pairs = small_world(tmp_path)
    plain = build_store([source], tokenizer, tmp_path / "plain", held_out=0.2)
    swaps = {name: WordSwap.of_corpus(name, pairs) for name in "AB"}
    a, b = (
        build_store([source], tokenizer, tmp_path / name, held_out=0.2, swap=swap)
        for name, swap in swaps.items()
    )
    assert a.n_train == b.n_train == plain.n_train < len(plain.sizes)
    assert len({store.content_hash for store in (a, b, plain)}) == 3
    counts = {
        name: count_words([tokenizer.decode(store.tokens.tolist())])
        for name, store in {"A": a, "B": b, "plain": plain}.items()
    }
    for pair in pairs:
        total = counts["plain"][pair.first] + counts["plain"][pair.second]
        for name, rare, frequent in (
            ("A", pair.first, pair.second),
            ("B", pair.second, pair.first),
        ):
            assert counts[name][rare] + counts[name][frequent] == total
            assert counts[name][rare] < 0.35 * counts[name][frequent]
    assert a.summary["n_replaced"] == dict(sorted(swaps["A"].n_replaced.items()))


def test_swapped_store_is_reopened_and_not_taken_for_another(tmp_path):
    source, tokenizer, pairs = small_world(tmp_path)
    swap = WordSwap.of_corpus("A", pairs)
    first = build_store([source], tokenizer, tmp_path / "store", swap=swap)
    again = build_store([source], tokenizer, tmp_path / "store", swap=swap)
    assert np.array_equal(first.tokens, again.tokens)
    for other in (None, WordSwap.of_corpus("B", pairs)):
        with pytest.raises(InputError, match="holds something else"):
            build_store([source], tokenizer, tmp_path / "store", swap=other)


def test_passages_hold_their_word_in_the_first_half(tmp_path):
    source, _, pairs = small_world(tmp_path)
    words = [word for pair in pairs for word in (pair.first, pair.second)]
    documents = list(read_documents(source))
    passages = choose_passages(documents, words, per_word=3, n_words=20)
    texts = {f"{d.source}:{d.doc_id}": d.text for d in documents}
    seen = []
    for passage in passages:
        name, _, at = passage["doc_id"].rpartition("@")
        whole, text = texts[name], passage["text"]
        assert text in whole
        assert len(text.split()) == 20
        word = whole[int(at) :].split()[0].strip(".")
        seen.append(word)
        if whole.index(text) + len(text) < len(whole):
            assert word in " ".join(text.split()[:11])
    assert {word: seen.count(word) for word in words} == dict.fromkeys(words, 3)
    places = {
        p["text"].split().index(w)
        for p, w in zip(passages, seen, strict=True)
        if w in p["text"].split()
    }
    assert len(places) > 4
    assert passages == choose_passages(documents, words, per_word=3, n_words=20)
    assert passages != choose_passages(documents, words, per_word=3, n_words=20, seed=1)
