"""A tiny encoder, probe and null probe with their tokenizer, as training would leave them.

The probe is trained for seconds, until it writes the known sentences back.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MambaConfig, PreTrainedTokenizerFast

from sample_tables import sample_rows
from selmem.encoder import MambaEncoder, load_encoder, read_state
from selmem.hub.known_sentences import KNOWN_SENTENCES, SENTENCE_TOKENS
from selmem.probe import MambaProbe
from selmem.tables import OMISSION, write_table
from selmem.tokenization import tokenizer_hash

EOS = "<|endoftext|>"


@dataclass(frozen=True)
class TinyRelease:
    encoder: Path
    probe: Path
    null_probe: Path


def make_release(folder):
    """Write the three model folders under `folder`."""
    torch.manual_seed(0)
    # the tensors are tiny, and threads that wait for each other are not free
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    encoder_path = folder / "mamba-tiny"
    config = MambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    MambaEncoder(config).save_pretrained(encoder_path)
    tokenizer.save_pretrained(encoder_path)
    write_training_record(encoder_path, seed=1)
    encoder = load_encoder(encoder_path)
    paths = {}
    for name, condition in (("mamba-tiny-probe", "state"), ("mamba-tiny-null-probe", "none")):
        probe = MambaProbe.from_encoder(
            encoder,
            condition,
            tokenizer_hash=tokenizer_hash(tokenizer),
            max_chunk_tokens=32,
        )
        train(probe, encoder, tokenizer, steps=150 if condition == "state" else 5)
        paths[name] = folder / name
        probe.save_pretrained(paths[name])
        tokenizer.save_pretrained(paths[name])
        write_training_record(paths[name], seed=2)
    write_card_tables(paths["mamba-tiny-probe"])
    return TinyRelease(encoder_path, *paths.values())


def write_training_record(folder, *, seed):
    """Write what `Run.save` leaves beside a model."""
    bits = {"4": 3.25 + seed, "16": 6.125 + seed}
    record = {
        "steps": 12_000,
        "tokens": 393_216_000,
        "seconds": 4_230.0,
        "best_step": 11_500,
        "best_tokens": 376_832_000,
        "held_out_bits": bits,
        "held_out_accuracy": {"4": 0.875, "16": 0.5625},
        "corpus": {"sources": {"gsm8k": {"n_documents": 1319, "n_tokens": 281_000}}},
        "device": "CPU",
        "settings": {
            "seed": seed,
            "learning_rate": 0.002,
            "tokens_per_batch": 32_768,
            "max_steps": 12_000,
            "encoder": str(folder),
        },
    }
    (folder / "training.json").write_text(json.dumps(record))
    rows = [
        {
            "step": step,
            "tokens": step * 32_768,
            "mean_held_out_bits": 4 + seed + 1000 / (step + 500),
        }
        for step in range(0, 12_001, 500)
    ]
    (folder / "learning_curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_card_tables(folder):
    """Write the measured tables of a probe's card, as `collect_card_tables` does."""
    rows = sample_rows("selmem/mamba-tiny-probe")["omission"]
    names = {"all": "whole", "noun": "noun"}
    whole = [row | {"tag": names[row["tag"]]} for row in rows]
    early = [row | {"tag": "without_last_4"} for row in whole if row["tag"] == "whole"]
    omission = pa.Table.from_pylist(whole + early, schema=OMISSION)
    write_table(omission, folder / "omission.parquet", metadata={})
    controls = [
        {
            "source": "gsm8k",
            "length": length,
            "condition": condition,
            "layer": layer,
            "bits": bits,
            "recovered_fraction": 1 - bits / 8,
        }
        for length in (4, 16)
        for condition, bits, layer in (
            ("null", 8.0, -1),
            ("exchanged_ssm", 9.5, -1),
            ("probe", 2.0, -1),
            ("exchanged_ssm_layer_1", 4.0, 1),
        )
    ]
    write_table(pa.Table.from_pylist(controls), folder / "controls.parquet", metadata={})


def make_tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(KNOWN_SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, bos_token=EOS, pad_token=EOS, padding_side="left"
    )


def train(probe, encoder, tokenizer, *, steps):
    rows = [tokenizer(text)["input_ids"][:SENTENCE_TOKENS] for text in KNOWN_SENTENCES]
    ids = torch.tensor(rows)
    state = read_state(encoder, ids)
    input_ids, labels = probe.teacher_forcing(ids)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=1e-2)
    probe.train()
    for _ in range(steps):
        loss = probe(input_ids, state=state, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    probe.eval()


def edit_json(path, **changes):
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: v for key, v in content.items() if v is not None}))
