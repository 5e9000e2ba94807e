import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selmem import load_encoder
from selmem.errors import InputError
from selmem.pretraining import PretrainConfig, pretrain
from selmem.runs.config import parse_config
from small_corpus import small_texts, small_tokenizer, write_corpus

TEXTS = small_texts()


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("materials")
    small_tokenizer(TEXTS).save_pretrained(folder / "tokenizer")
    return {
        "tokenizer": str(folder / "tokenizer"),
        "data": [write_corpus(folder / "corpus.jsonl", TEXTS)],
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "state_size": 4,
        "window_tokens": 32,
        "tokens_per_batch": 256,
        "held_out_tokens": 256,
        "max_steps": 20,
        "eval_every": 10,
        "save_every": 8,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def pretrained(materials, tmp_path_factory):
    return run(materials, tmp_path_factory.mktemp("pretrained") / "encoder")


def run(materials, out, **changes):
    return pretrain(PretrainConfig(**{**materials, "out": str(out), **changes}))


def test_stock_transformers_load_the_encoder_and_agree_with_ours(pretrained):
    stock = AutoModelForCausalLM.from_pretrained(pretrained)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    ids = tokenizer("ka lo mi ten", return_tensors="pt").input_ids
    ours = load_encoder(pretrained)(ids).logits
    torch.testing.assert_close(stock(ids).logits, ours, rtol=1e-4, atol=1e-5)
    assert type(stock).__name__ == "MambaForCausalLM"
    assert stock.config.use_cache
    assert stock.config.eos_token_id == stock.config.pad_token_id == tokenizer.eos_token_id


def test_pretraining_lowers_the_held_out_bits(pretrained):
    rows = [
        json.loads(row) for row in (pretrained / "learning_curve.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert rows[-1]["mean_held_out_bits"] < rows[0]["mean_held_out_bits"] - 0.5
    training = json.loads((pretrained / "training.json").read_text())
    assert training["held_out_bits"] == rows[-1]["held_out_bits"]


def test_held_out_bits_at_the_start_are_those_of_a_uniform_guess(pretrained):
    first = json.loads((pretrained / "learning_curve.jsonl").read_text().splitlines()[0])
    assert first["mean_held_out_bits"] == pytest.approx(8.23, abs=0.15)  # log2(300)


def test_interrupted_and_resumed_encoder_is_the_same(pretrained, materials, tmp_path):
    out = tmp_path / "encoder"
    run(materials, out, stop_after_steps=7)
    run(materials, out, resume=True)
    ours, theirs = load_encoder(out).state_dict(), load_encoder(pretrained).state_dict()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_windows_can_stay_inside_documents(materials, tmp_path):
    out = run(materials, tmp_path / "encoder", packed=False, window_tokens=16, max_steps=2)
    assert (out / "config.json").exists()
    with pytest.raises(InputError, match="no training document is long enough"):
        run(materials, tmp_path / "long", packed=False, window_tokens=200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0, expected at least 1"),
        ({"window_tokens": 1}, "window_tokens is 1, expected at least 2"),
        ({"tokenizer": "no/such/tokenizer/here"}, "no/such/tokenizer/here"),
        ({"device": "cuda"}, "torch finds no GPU"),
        ({"cuda_graphs": True}, "works in one process on a GPU"),
    ],
)
def test_wrong_settings_are_refused_by_name(materials, tmp_path, changes, message):
    if torch.cuda.is_available() and "tokenizer" not in changes:
        pytest.skip("about a machine without a GPU")
    with pytest.raises(InputError, match=message):
        run(materials, tmp_path / "encoder", **changes)


def test_a_store_of_another_tokenizer_is_refused(materials, tmp_path):
    from selmem.corpus_building import build_store

    other = small_tokenizer(TEXTS, vocab_size=280)
    store = build_store(materials["data"], other, tmp_path / "store")
    with pytest.raises(InputError, match="build the store with the model's tokenizer"):
        run(materials, tmp_path / "encoder", data=[str(store.path)])
    with pytest.raises(InputError, match="give it alone"):
        run(materials, tmp_path / "second", data=[str(store.path), *materials["data"]])


def test_every_setting_says_what_it_is_and_defaults_are_the_tiny_model():
    for name, entry in PretrainConfig.__dataclass_fields__.items():
        assert entry.metadata.get("help"), name
    config = parse_config(
        PretrainConfig, ["--tokenizer", "t", "--data", "d", "--out", "o"], prog="pretrain"
    )
    assert (config.hidden_size, config.num_hidden_layers, config.weight_decay) == (192, 6, 0.1)
