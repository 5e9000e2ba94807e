"""A corpus, a tokenizer and an encoder, small enough to train on in a test."""

import json
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SYLLABLES = ["ka", "lo", "mi", "ten", "ur", "sa", "vo", "pri", "and", "el"]


def small_texts(n_documents=40, n_words=30, seed=0):
    """Return texts of pseudo-words, no two the same."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 3))) for _ in range(60)]
    return [" ".join(generator.choices(words, k=n_words)) + "." for _ in range(n_documents)]


def write_corpus(path, texts):
    """Write a jsonl corpus and return its path as a source."""
    lines = [json.dumps({"text": text, "id": f"d{i}"}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def small_tokenizer(texts, vocab_size=300):
    """Return a byte-level BPE tokenizer trained on `texts`; id 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)
