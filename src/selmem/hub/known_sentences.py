"""What a published model does with a few known sentences: recorded once, compared at `verify`.

A probe that merely repeats a recorded output proves nothing, so the record also holds how much of
the sentences comes back from the states of other sentences: only the difference is read from the
state.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from selmem.encoder import MambaEncoder, read_state
from selmem.errors import InputError
from selmem.probe import MambaProbe, MambaState

KNOWN_SENTENCES = (
    "The old bridge was closed because the river had risen.",
    "She bought two red apples and a loaf of bread.",
    "Our train leaves at seven in the morning from London.",
    "He wrote a long letter to his sister in Canada.",
    "A small dog was sleeping under the kitchen table.",
    "They did not know who had opened the window.",
    "In the summer the children play near the lake.",
    "The teacher asked a question that nobody could answer.",
)
# short enough for the smallest probe to write most of it back, longer than what the window of the
# convolution holds
SENTENCE_TOKENS = 8
# of the tokens in place: reconstructed from the right state minus from another sentence's; a random
# probe is at 0, the weakest trained one is far above
LEAST_MARGIN = 0.1


def record_encoder(encoder: MambaEncoder, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the token that the encoder expects after each token of the known sentences."""
    input_ids = _sentence_ids(tokenizer)
    with torch.no_grad():
        expected = encoder(input_ids).logits.argmax(-1)
    return {
        "encoder_fingerprint": encoder.fingerprint,
        "sentences": _rows(input_ids, "next_token_ids", expected),
    }


def record_probe(
    probe: MambaProbe, encoder: MambaEncoder, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Return what the probe reconstructs of the known sentences, and from exchanged states.

    Raises:
        InputError: the probe cannot read this encoder's states.
    """
    input_ids = _sentence_ids(tokenizer)
    state = read_state(encoder, input_ids)
    own = _reconstruct(probe, state, input_ids.shape[1])
    exchanged = state.select(torch.arange(len(input_ids)).roll(1))
    other = _reconstruct(probe, exchanged, input_ids.shape[1])
    return {
        "encoder_fingerprint": encoder.fingerprint,
        "condition": probe.config.condition,
        "tokens": input_ids.numel(),
        "matched_tokens": int((own == input_ids).sum()),
        "matched_tokens_of_exchanged_states": int((other == input_ids).sum()),
        "sentences": _rows(input_ids, "reconstruction_ids", own),
    }


def check_inversion(record: Mapping[str, Any]) -> None:
    """Refuse the record of a probe that does not read its state.

    Raises:
        InputError: the sentences come back no better from their own states than from others'.
    """
    if record["condition"] == "none":
        return
    matched, exchanged = record["matched_tokens"], record["matched_tokens_of_exchanged_states"]
    if matched - exchanged < LEAST_MARGIN * record["tokens"]:
        raise InputError(
            f"the probe does not invert: of {record['tokens']} tokens of known sentences it writes "
            f"{matched} in place from their states and {exchanged} from other sentences' states; "
            "train it further"
        )


def compare_records(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a model that does not do what was recorded when it was published.

    Raises:
        InputError: names what differs, and the first sentence where it does.
    """
    if len(recorded.get("sentences", ())) != len(found["sentences"]):
        raise InputError(f"expected a record of {len(found['sentences'])} known sentences")
    for key, value in found.items():
        if key == "sentences" or recorded.get(key) == value:
            continue
        raise InputError(f"{key} is {value!r}, but {recorded.get(key)!r} was recorded")
    for number, now in enumerate(found["sentences"]):
        before = recorded["sentences"][number]
        if before != now:
            raise InputError(
                f"known sentence {number + 1} ({KNOWN_SENTENCES[number]!r}) now gives {now}, but "
                f"{before} was recorded; the model is not the one that was published"
            )


def _sentence_ids(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Return the first tokens of every sentence, as many as the shortest has, (B, T)."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in KNOWN_SENTENCES]
    length = min(SENTENCE_TOKENS, *map(len, ids))
    return torch.tensor([row[:length] for row in ids])


def _reconstruct(probe: MambaProbe, state: MambaState, length: int) -> Tensor:
    """Return `length` tokens per row, (B, T): when to end is not asked of the probe here."""
    try:
        ids = probe.reconstruct(state, length)
    except ValueError as error:
        raise InputError(f"the probe cannot read the encoder's states: {error}") from error
    return F.pad(ids, (0, length - ids.shape[1]), value=probe.config.eos_token_id)


def _rows(input_ids: Tensor, name: str, output: Tensor) -> list[dict[str, list[int]]]:
    return [
        {"token_ids": before, name: after}
        for before, after in zip(input_ids.tolist(), output.tolist(), strict=True)
    ]
