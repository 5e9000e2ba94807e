import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from selmem.chunks import tokenize_document
from selmem.corpora import read_documents
from selmem.documents import Document, Word
from selmem.tokenization import load_tokenizer
from small_corpora import chunks_of
from small_tokenizers import byte_level

TOKENIZER = byte_level()
NFC_TOKENIZER = byte_level(nfc=True, trim_offsets=True, split_digits=True, space_tokens=True)


def document(text, spans=(), doc_id="d"):
    words = tuple(Word(start=start, end=end, kind="word") for start, end in spans)
    return Document(doc_id=doc_id, source="s", text=text, words=words)


@st.composite
def texts_with_words(draw):
    parts = draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
            min_size=1,
            max_size=12,
        )
    )
    spans, start = [], 0
    for part in parts:
        if part == part.strip() and draw(st.booleans()):
            spans.append((start, start + len(part)))
        start += len(part)
    return "".join(parts), spans


@settings(max_examples=80, deadline=None)
@given(texts_with_words(), st.integers(1, 7), st.booleans())
def test_windows_are_the_tokens_in_order_and_words_decode_to_their_characters(drawn, length, nfc):
    text, spans = drawn
    tokenizer = NFC_TOKENIZER if nfc else TOKENIZER
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    chunks = chunks_of(document(text, spans), tokenizer, length)
    joined = [token for chunk in chunks for token in chunk.token_ids]
    assert joined == token_ids[: len(token_ids) // length * length]
    assert [chunk.chunk_id for chunk in chunks] == [f"s/d/{length}/{i}" for i in range(len(chunks))]
    for chunk in chunks:
        assert [word.word_index for word in chunk.words] == list(range(len(chunk.words)))
        for word in chunk.words:
            assert 0 <= word.token_start < word.token_end <= length
            if not word.cut:
                decoded = tokenizer.decode(chunk.token_ids[word.token_start : word.token_end])
                plain = unicodedata.normalize("NFC", word.text) if nfc else word.text
                assert plain in decoded or unicodedata.normalize("NFC", decoded).find(plain) >= 0


def overlapping_tokens(text, span, tokenizer):
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    return [i for i, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]


@settings(max_examples=80, deadline=None)
@given(texts_with_words(), st.integers(1, 7), st.booleans())
def test_a_word_is_in_every_chunk_with_one_of_its_tokens_and_cut_if_not_all(drawn, length, nfc):
    text, spans = drawn
    tokenizer = NFC_TOKENIZER if nfc else TOKENIZER
    for number, chunk in enumerate(chunks_of(document(text, spans), tokenizer, length)):
        window = range(number * length, (number + 1) * length)
        expected = []
        for span in spans:
            tokens = overlapping_tokens(text, span, tokenizer)
            inside = [token - window.start for token in tokens if token in window]
            if inside:
                bounds = (inside[0], inside[-1] + 1)
                expected.append((text[slice(*span)], *bounds, len(inside) < len(tokens)))
        found = [(w.text, w.token_start, w.token_end, w.cut) for w in chunk.words]
        assert found == expected


def test_text_of_a_chunk_is_its_characters_to_the_last_space():
    text = "She didn't , see  it .\n" * 9
    chunks = chunks_of(document(text), TOKENIZER, 30)
    assert len(chunks) > 2
    assert text.startswith("".join(chunk.text for chunk in chunks))
    for chunk in chunks:
        decoded = TOKENIZER.decode(chunk.token_ids, clean_up_tokenization_spaces=False)
        assert chunk.text == decoded


def test_words_that_share_a_token_both_have_it():
    text = " the state"
    spans = [(1, 3), (3, 4), (5, 10)]  # " the" is one token
    (chunk,) = chunks_of(document(text, spans), TOKENIZER, len(TOKENIZER(text).input_ids))
    first, second, third = chunk.words
    assert (first.token_start, first.token_end) == (second.token_start, second.token_end) == (0, 1)
    assert third.token_start == 1
    assert not any(word.cut for word in chunk.words)


def test_a_character_of_several_tokens_belongs_whole_to_its_word():
    text = "a 🦊 b"
    (chunk,) = chunks_of(document(text, [(2, 3)]), TOKENIZER, len(TOKENIZER(text).input_ids))
    (fox,) = chunk.words
    assert fox.token_end - fox.token_start >= 4
    assert TOKENIZER.decode(chunk.token_ids[fox.token_start : fox.token_end]).strip() == "🦊"


def test_a_word_across_a_border_is_in_both_chunks_and_cut():
    text = "zzzz qqqq"
    n_tokens = len(TOKENIZER(text).input_ids)
    chunks = chunks_of(document(text, [(0, 4), (5, 9)]), TOKENIZER, n_tokens - 1)
    assert [(word.text, word.cut) for word in chunks[0].words] == [("zzzz", False), ("qqqq", True)]
    halves = chunks_of(document(text, [(0, 4), (5, 9)]), TOKENIZER, 3)
    assert [(w.text, w.cut) for w in halves[0].words] == [("zzzz", True)]
    assert [(w.text, w.cut) for w in halves[1].words] == [("zzzz", True), ("qqqq", True)]


def test_text_like_a_special_token_is_tokenized_as_text():
    tokenized = tokenize_document(document("a <|endoftext|> b"), TOKENIZER)
    assert TOKENIZER.eos_token_id not in tokenized.token_ids
    assert TOKENIZER.decode(tokenized.token_ids) == "a <|endoftext|> b"


def test_tags_go_with_the_word():
    word = Word(start=1, end=4, pos="DET", entity="O", kind="word")
    text = Document(doc_id="d", source="s", text=" the", words=(word,))
    (chunk,) = chunks_of(text, TOKENIZER, 1)
    assert (chunk.words[0].pos, chunk.words[0].entity, chunk.words[0].kind) == ("DET", "O", "word")


def test_a_document_shorter_than_a_chunk_has_none():
    assert chunks_of(document(" the"), TOKENIZER, 2) == []


def test_conll_words_are_tokens_of_the_real_tokenizer(shared_data):
    tokenizer = load_tokenizer(shared_data("tokenizer"))
    documents = list(read_documents(str(shared_data("conll2003/eng.testb"))))[:40]
    words = {(d.doc_id, w.start): d.text[w.start : w.end] for d in documents for w in d.words}
    chunks = [chunk for document in documents for chunk in chunks_of(document, tokenizer, 64)]
    whole = [(chunk, word) for chunk in chunks for word in chunk.words if not word.cut]
    assert len(whole) > 0.8 * len(words)
    for chunk, word in whole:
        ids = chunk.token_ids[word.token_start : word.token_end]
        assert tokenizer.decode(ids).strip() == word.text
