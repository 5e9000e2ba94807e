"""Where tokens, pre-tokens and words stand in the text of a chunk, in characters."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from selmem.chunks import Chunk, ChunkWord
from selmem.errors import InputError
from selmem.tokenization import decode

Span = tuple[int, int]


def pretoken_ends(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the characters after which the tokenizer's pre-tokens of `text` end.

    Raises:
        InputError: the tokenizer cuts no text into pre-tokens.
    """
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    if splitter is None:
        raise InputError("the tokenizer has no pre-tokenizer, so words have no borders to match at")
    ends = sorted({end for _, (_, end) in splitter.pre_tokenize_str(text)} - {0})
    return [*ends[:-1], len(text)] if ends else []


def token_texts(tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int]) -> list[str]:
    """Return the text of every single token; bytes that are no character become U+FFFD."""
    cache = {token_id: decode(tokenizer, [token_id]) for token_id in set(token_ids)}
    return [cache[token_id] for token_id in token_ids]


def token_spans(
    tokenizer: PreTrainedTokenizerFast, text: str, token_ids: Sequence[int]
) -> list[Span]:
    """Return the characters of `text` that each token writes.

    Tokens that share a character have the same span.

    Args:
        tokenizer: that wrote the ids.
        text: the decoded ids.
        token_ids: (T,).
    """
    spans: list[Span] = []
    start, waiting = 0, 0
    singles = token_texts(tokenizer, token_ids)
    for index, single in enumerate(singles):
        waiting += 1
        first = index + 1 - waiting
        piece = single if waiting == 1 else decode(tokenizer, token_ids[first : index + 1])
        if text.startswith(piece, start):
            spans += [(start, start + len(piece))] * waiting
            start, waiting = start + len(piece), 0
    return spans + [(start, len(text))] * waiting


def word_spans(tokenizer: PreTrainedTokenizerFast, chunk: Chunk) -> list[Span]:
    """Return the characters that each word of a chunk has in the chunk's text.

    A word is looked for inside the text of its own tokens, behind the word before it, as it stands
    in the document and as the tokenizer normalises it. Of a word that the border cuts, the part
    inside counts.
    """
    tokens = token_spans(tokenizer, chunk.text, chunk.token_ids)
    normalizer = tokenizer.backend_tokenizer.normalizer
    spans: list[Span] = []
    behind = 0
    for word in chunk.words:
        low = max(behind, tokens[word.token_start][0])
        high = tokens[word.token_end - 1][1]
        forms = [word.text]
        if normalizer is not None:
            forms.append(normalizer.normalize_str(word.text))
        found = [_find(chunk, word, form, (low, high)) for form in forms]
        span = next(filter(None, found), None) or _trimmed(chunk.text, min(low, high - 1), high)
        spans.append(span)
        behind = span[1]
    return spans


def _find(chunk: Chunk, word: ChunkWord, form: str, region: Span) -> Span | None:
    low, high = region
    if not word.cut:
        start = chunk.text.find(form, low, high)
        return (start, start + len(form)) if start >= 0 else None
    for size in range(len(form) - 1, 0, -1):
        if word.token_start == 0 and chunk.text.startswith(form[-size:]) and size <= high:
            return 0, size
        start = len(chunk.text) - size
        if word.token_end == chunk.length and start >= low and chunk.text.endswith(form[:size]):
            return start, len(chunk.text)
    return None


def _trimmed(text: str, low: int, high: int) -> Span:
    """Return the span without the white space around it, where it holds anything else."""
    piece = text[low:high]
    if not (stripped := piece.strip()):
        return low, high
    start = low + piece.index(stripped)
    return start, start + len(stripped)
