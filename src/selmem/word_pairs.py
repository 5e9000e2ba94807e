"""Pairs of words to exchange in a corpus, so that a word's frequency is set and not only observed.

The words of a pair are alike in class, number of tokens and frequency. In corpus A most occurrences
of its first word are replaced by its second, in corpus B the reverse; all else is equal. What a
model of A and a model of B do with the same text then differs because of the frequency, and not
because of what kind of word is rare.
"""

import heapq
import json
import random
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

from selmem.documents import Document
from selmem.errors import InputError
from selmem.tables import write_text

_WORD = re.compile(r"\b[a-z]{3,}\b")
_SPACED = re.compile(r"\S+")
OPEN_CLASSES = ("NOUN", "VERB", "ADJ", "ADV")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A word that may stand in a pair.

    Attributes:
        word: lower-case letters.
        pos: its part of speech.
        token_ids: of the word with a space before it.
        count: occurrences in the corpus.
    """

    word: str
    pos: str
    token_ids: tuple[int, ...]
    count: int


@dataclass(frozen=True, kw_only=True)
class WordPair:
    """Two words alike in class, number of tokens and frequency; counts are of the corpus."""

    first: str
    second: str
    pos: str
    n_tokens: int
    first_count: int
    second_count: int


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Return how often each word of three or more lower-case letters occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text))
    return counts


def word_classes(
    documents: Iterable[Document], *, share: float = 0.8, at_least: int = 10
) -> dict[str, str]:
    """Return the part of speech of every word that nearly always has the same.

    Args:
        documents: with parts of speech.
        share: of its occurrences that have this part of speech.
        at_least: occurrences.
    """
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for document in documents:
        for word in document.words:
            surface = document.text[word.start : word.end]
            if word.pos is not None and _WORD.fullmatch(surface):
                seen[surface][word.pos] += 1
    found = {}
    for surface, classes in seen.items():
        (pos, count), total = classes.most_common(1)[0], classes.total()
        if total >= at_least and count >= share * total:
            found[surface] = pos
    return found


def find_candidates(
    counts: Mapping[str, int],
    classes: Mapping[str, str],
    tokenizer: Any,
    *,
    least: int,
    most: int,
    max_tokens: int = 3,
) -> list[Candidate]:
    """Return the words of an open class with `least` to `most` occurrences.

    Args:
        counts: occurrences in the corpus.
        classes: part of speech of each word.
        tokenizer: of the models.
        least: occurrences.
        most: likewise.
        max_tokens: of a word with a space before it.
    """
    found = []
    for word, count in counts.items():
        if least <= count <= most and classes.get(word) in OPEN_CLASSES:
            ids = tuple(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
            if len(ids) <= max_tokens:
                found.append(Candidate(word=word, pos=classes[word], token_ids=ids, count=count))
    return found


def choose_pairs(
    candidates: Iterable[Candidate], n_pairs: int, *, max_ratio: float = 1.1, seed: int = 0
) -> list[WordPair]:
    """Return pairs of words that share class and number of tokens, but no token, drawn at random.

    Args:
        candidates: each word at most once.
        n_pairs: how many.
        max_ratio: of the larger count to the smaller.
        seed: of the draw, and of which word of a pair is the first.

    Raises:
        InputError: there are fewer such pairs.
    """
    groups: defaultdict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.pos, len(candidate.token_ids)].append(candidate)
    pairs = [pair for group in groups.values() for pair in _neighbours(group, max_ratio)]
    if len(pairs) < n_pairs:
        raise InputError(
            f"only {len(pairs)} pairs of words are alike, {n_pairs} are wanted; allow more "
            "frequencies, or give more text"
        )
    pairs.sort(key=lambda pair: (pair[0].word, pair[1].word))
    generator = random.Random(seed)
    chosen = generator.sample(pairs, n_pairs)
    return [_pair(*generator.sample(pair, 2)) for pair in chosen]


def _neighbours(
    group: Iterable[Candidate], max_ratio: float
) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield pairs of neighbours in frequency, each word in one pair at most."""
    waiting: list[Candidate] = []
    for candidate in sorted(group, key=lambda one: (one.count, one.word)):
        waiting = [one for one in waiting if candidate.count <= max_ratio * one.count]
        for one in waiting:
            if not set(one.token_ids) & set(candidate.token_ids):
                waiting.remove(one)
                yield one, candidate
                break
        else:
            waiting.append(candidate)


def _pair(first: Candidate, second: Candidate) -> WordPair:
    return WordPair(
        first=first.word,
        second=second.word,
        pos=first.pos,
        n_tokens=len(first.token_ids),
        first_count=first.count,
        second_count=second.count,
    )


def write_pairs(pairs: Sequence[WordPair], path: Path) -> None:
    """Write pairs as JSON lines."""
    write_text(path, "".join(json.dumps(asdict(pair)) + "\n" for pair in pairs))


def read_pairs(path: Path) -> list[WordPair]:
    """Return the pairs that `write_pairs` wrote.

    Raises:
        InputError: the file is absent or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [WordPair(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no word pairs ({error}); choose them again") from error


@dataclass(frozen=True)
class WordSwap:
    """Replaces most occurrences of some words by others, the same way whenever it meets a text.

    Attributes:
        replacements: a word and what replaces it.
        share: probability that an occurrence is replaced.
        seed: of the draws.
        n_replaced: occurrences replaced so far, by word.
    """

    replacements: Mapping[str, str]
    share: float = 0.9
    seed: int = 0
    n_replaced: Counter[str] = field(default_factory=Counter, compare=False)

    @classmethod
    def of_corpus(cls, corpus: str, pairs: Iterable[WordPair]) -> "WordSwap":
        """Return what makes corpus "A" (first words become rare) or "B" (second words do)."""
        both = [(pair.first, pair.second) for pair in pairs]
        return cls(dict(both if corpus == "A" else [(second, first) for first, second in both]))

    def __call__(self, text: str) -> str:
        """Return the text with the chosen occurrences replaced."""
        draws = random.Random(sha256(f"{self.seed} {text}".encode()).digest())

        def replaced(match: re.Match[str]) -> str:
            word = match[0]
            if word not in self.replacements or draws.random() >= self.share:
                return word
            self.n_replaced[word] += 1
            return self.replacements[word]

        return _WORD.sub(replaced, text)

    def identity(self) -> dict[str, Any]:
        """Return what decides the outcome, JSON-able."""
        words = json.dumps(sorted(self.replacements.items()))
        return {
            "swap": sha256(words.encode()).hexdigest(),
            "share": self.share,
            "seed": self.seed,
        }


def choose_passages(
    documents: Iterable[Document],
    words: Iterable[str],
    *,
    per_word: int,
    n_words: int = 64,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Return passages in each of which one of the words stands, in its first half.

    Args:
        documents: streamed.
        words: each gets `per_word` passages, or as many as there are.
        per_word: passages.
        n_words: of a passage, counted by white space.
        seed: of the draw of occurrences and of their places.

    Returns:
        records with `doc_id`, which is "source:document@character", and `text`.
    """
    kept: dict[str, list[tuple[float, str, str]]] = {word: [] for word in words}
    for document in documents:
        name = f"{document.source}:{document.doc_id}"
        draws = random.Random(sha256(f"{seed} {name}".encode()).digest())
        spans: list[tuple[int, int]] = []
        for match in _WORD.finditer(document.text):
            if match[0] not in kept:
                continue
            rank, place = draws.random(), draws.random()
            heap = kept[match[0]]
            if len(heap) == per_word and -rank <= heap[0][0]:
                continue
            spans = spans or [piece.span() for piece in _SPACED.finditer(document.text)]
            text = _passage(document.text, spans, match.start(), n_words, place)
            entry = (-rank, f"{name}@{match.start()}", text)
            (heapq.heappush if len(heap) < per_word else heapq.heapreplace)(heap, entry)
    found = {doc_id: text for heap in kept.values() for _, doc_id, text in heap}
    return [{"doc_id": doc_id, "text": text} for doc_id, text in sorted(found.items())]


def _passage(
    text: str, spans: Sequence[tuple[int, int]], at: int, n_words: int, place: float
) -> str:
    """Return the passage in which character `at` stands in the first half, at the share `place`."""
    own = bisect_right(spans, at, key=itemgetter(0)) - 1
    begin = max(0, own - int(place * (n_words // 2)))
    begin = min(begin, max(0, len(spans) - n_words))
    end = min(begin + n_words, len(spans))
    return text[spans[begin][0] : spans[end - 1][1]]
