import json

import pytest
from tokenizers import pre_tokenizers

from selmem.errors import InputError
from selmem.tokenization import decode, load_tokenizer, plain_backend, tokenizer_hash
from small_tokenizers import TEXT, byte_level


@pytest.fixture
def folder(tmp_path):
    byte_level().save_pretrained(tmp_path)
    return tmp_path


def test_folder_file_and_object_are_one_tokenizer(folder):
    expected = tokenizer_hash(byte_level())
    assert tokenizer_hash(load_tokenizer(folder)) == expected
    assert tokenizer_hash(load_tokenizer(folder / "tokenizer.json")) == expected
    (folder / "tokenizer_config.json").unlink()
    assert tokenizer_hash(load_tokenizer(folder)) == expected


def test_a_loaded_tokenizer_pads_on_the_left_with_its_end_of_text(folder):
    (folder / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("left", tokenizer.eos_token_id)


def test_padding_and_template_do_not_change_the_hash():
    tokenizer = byte_level()
    before = tokenizer_hash(tokenizer)
    tokenizer(["a", "a b c d e"], padding=True, truncation=True, max_length=3)
    assert tokenizer_hash(tokenizer) == before == tokenizer_hash(byte_level(trim_offsets=True))


def test_merges_have_one_hash_in_both_notations(folder):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    file.write_text(json.dumps(content))
    assert tokenizer_hash(load_tokenizer(file)) == tokenizer_hash(byte_level())


@pytest.mark.parametrize("option", ["nfc", "split_digits", "space_tokens"])
def test_whatever_changes_the_ids_changes_the_hash(option):
    assert tokenizer_hash(byte_level(**{option: True})) != tokenizer_hash(byte_level())


def test_the_same_entries_cut_otherwise_have_another_hash():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer_hash(tokenizer) != tokenizer_hash(byte_level())


def test_decoding_keeps_special_tokens_and_every_space():
    tokenizer = byte_level()
    text = TEXT + "  a , b .<|endoftext|>"
    assert decode(tokenizer, tokenizer(text).input_ids) == text


def test_the_plain_backend_takes_special_tokens_for_text_and_leaves_the_original_alone():
    tokenizer = byte_level()
    assert tokenizer.eos_token_id not in plain_backend(tokenizer).encode("<|endoftext|>").ids
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.eos_token_id]


def test_nothing_to_load_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer at .*absent"):
        load_tokenizer(tmp_path / "absent")
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        load_tokenizer(broken)
