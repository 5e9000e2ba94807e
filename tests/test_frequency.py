import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from selmem.errors import InputError
from selmem.frequency import count, load_frequencies
from selmem.tables import read_metadata
from selmem.tokenization import load_tokenizer, tokenizer_hash
from small_tokenizers import TEXT, byte_level


@pytest.fixture
def tokenizer_folder(tmp_path):
    byte_level().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def counted(tmp_path, tokenizer_folder):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "the fox, the Fox"}), encoding="utf-8")
    sources = [f"{tmp_path}/a.txt", f"b={tmp_path}/b.jsonl"]
    return count(sources, tokenizer_folder, tmp_path / "counts" / "counts.parquet")


def test_counts_of_several_sources_add_up(counted):
    tokenizer = byte_level()
    frequencies = load_frequencies(counted, tokenizer)
    texts = [TEXT, "the fox, the Fox"]
    ids = [token for text in texts for token in tokenizer(text).input_ids]
    np.testing.assert_array_equal(frequencies.token_counts, np.bincount(ids, minlength=360))
    assert frequencies.word_counts["the"] == TEXT.split().count("the") + 2
    assert frequencies.word_counts["ca"] == frequencies.word_counts["Fox"] == 1
    assert frequencies.n_tokens == len(ids)


def test_the_file_says_what_was_counted(counted):
    metadata = read_metadata(counted)
    frequencies = load_frequencies(counted, byte_level())
    assert metadata["tokenizer_hash"] == tokenizer_hash(byte_level())
    assert metadata["n_tokens"] == frequencies.n_tokens
    assert metadata["n_words"] == frequencies.n_words == sum(frequencies.word_counts.values())
    assert (metadata["n_documents"], metadata["word_count_error"]) == (2, 0)
    assert [source.rpartition("/")[2] for source in metadata["sources"]] == ["a.txt", "b.jsonl"]


def test_word_frequency_is_log10_per_million(counted):
    frequencies = load_frequencies(counted, byte_level())
    n_words = frequencies.n_words
    the = frequencies.word_counts["the"]
    assert frequencies.log10_word_frequency("the") == pytest.approx(math.log10(the / n_words * 1e6))
    unseen = frequencies.log10_word_frequency("zebra")
    assert unseen == pytest.approx(math.log10(0.5 / n_words * 1e6))


def test_a_word_of_several_parts_is_as_rare_as_its_rarest(counted):
    frequencies = load_frequencies(counted, byte_level())
    assert frequencies.log10_word_frequency("the-fox") == frequencies.log10_word_frequency("-")
    assert frequencies.log10_word_frequency("the'll") == frequencies.log10_word_frequency("'ll")


def test_the_rarest_token_gives_the_tokens_frequency(counted):
    frequencies = load_frequencies(counted, byte_level())
    ids = byte_level()("the fox").input_ids
    rarest = frequencies.token_counts[ids].min()
    expected = math.log10(rarest / frequencies.n_tokens * 1e6)
    assert frequencies.log10_min_token_frequency(ids) == pytest.approx(expected)


def test_an_array_of_published_counts_loads_without_words(tmp_path):
    counts = np.arange(360)
    np.save(tmp_path / "counts.npy", counts)
    frequencies = load_frequencies(tmp_path / "counts.npy", byte_level())
    assert frequencies.n_tokens == counts.sum()
    assert frequencies.log10_word_frequency("the") is None
    assert frequencies.log10_min_token_frequency([7, 9]) == pytest.approx(
        math.log10(7 / counts.sum() * 1e6)
    )


def test_counts_of_another_tokenizer_are_refused(counted, tmp_path):
    with pytest.raises(InputError, match=r"counts tokens of tokenizer .* count again"):
        load_frequencies(counted, byte_level(split_digits=True))
    np.save(tmp_path / "short.npy", np.arange(359))
    with pytest.raises(InputError, match="counts 359 tokens, the tokenizer has 360"):
        load_frequencies(tmp_path / "short.npy", byte_level())


def test_files_that_are_no_counts_are_refused(tmp_path, counted):
    np.save(tmp_path / "float.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"expected int64\[V\], not float64\[2, 3\]"):
        load_frequencies(tmp_path / "float.npy", byte_level())
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="cannot read token counts"):
        load_frequencies(tmp_path / "broken.npy", byte_level())
    (tmp_path / "cut.parquet").write_bytes(counted.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        load_frequencies(tmp_path / "cut.parquet", byte_level())
    pq.write_table(pq.read_table(counted).replace_schema_metadata(None), tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="is not a file of `selmem count`"):
        load_frequencies(tmp_path / "bare.parquet", byte_level())


def test_an_unwritable_place_is_told_before_counting(tmp_path, tokenizer_folder):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        count([str(tmp_path / "absent.txt")], tokenizer_folder, tmp_path / "file" / "out.parquet")


def test_a_failed_count_leaves_no_file(tmp_path, tokenizer_folder):
    with pytest.raises(InputError, match="does not exist"):
        count([str(tmp_path / "absent.txt")], tokenizer_folder, tmp_path / "out" / "counts.parquet")
    assert not (tmp_path / "out").exists()


def test_the_piles_counts_belong_to_the_neox_tokenizer(shared_data):
    tokenizer = load_tokenizer(shared_data("tokenizer"))
    path = shared_data("pile_unigrams/pythia-unigrams.npy")
    frequencies = load_frequencies(path, tokenizer)
    assert frequencies.n_tokens == 300_039_168_000
    the, rare = (tokenizer(text).input_ids for text in (" the", " Uzbekistan"))
    assert frequencies.log10_min_token_frequency(the) > 4
    assert frequencies.log10_min_token_frequency(rare) < 3
    with pytest.raises(InputError, match="another tokenizer"):
        load_frequencies(path, byte_level())
