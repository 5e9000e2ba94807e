"""Byte-level BPE tokenizers of a few hundred entries, trained in the blink of an eye."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The quick brown fox can't jump over 1,234 lazy dogs. She didn't see x_1 += 2*y or the "
    "naïve café at 10 °C — its price was 3.50 €. In the end it was the best of times, it was the "
    "worst of times, and they'll say that the state of the art is not the art of the state.\n"
)


def byte_level(*, nfc=False, trim_offsets=False, split_digits=False, space_tokens=False):
    """Return a tokenizer like GPT-2's; the options make it like GPT-NeoX's, or split digits."""
    backend = Tokenizer(models.BPE())
    if nfc:
        backend.normalizer = normalizers.NFC()
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split_digits:
        cut = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), cut])
    backend.pre_tokenizer = cut
    if trim_offsets:
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    if space_tokens:
        backend.add_tokens([AddedToken(" " * n, normalized=True) for n in (8, 4, 3, 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
