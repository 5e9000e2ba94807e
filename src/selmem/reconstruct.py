"""One text through encoder and probe: which of its words does the probe write back?"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from selmem.annotation import split_documents
from selmem.bundle import bundled_path
from selmem.chunks import Chunk, cut_chunk, tokenize_document
from selmem.documents import Document
from selmem.errors import InputError
from selmem.measurement.matching import Matched, match_chunks
from selmem.measurement.models import find_processes, load_models, model_name
from selmem.measurement.scoring import Arrays, Models, score_batch, until_eos
from selmem.tables import RULES
from selmem.tokenization import decode


@dataclass(frozen=True, kw_only=True)
class ReconstructedWord:
    """A word of the text and what became of it.

    Attributes:
        text: the word.
        start: first character in the text.
        end: one past the last character.
        kind: number, variable, punctuation, ...: see `tags.KINDS`.
        omitted_count: share of the words of this surface that the reconstruction lacks.
        omitted_aligned: whether the reconstruction lacks it in its place in the order.
        omitted_forced: whether the probe guesses it wrong when given the true text before it.
        probe_bits: -log2 of the probability that the probe gives it, state and true text given.
        null_bits: the same for the null probe, which sees no state; None without one.
        recovered_bits: the difference.
    """

    text: str
    start: int
    end: int
    kind: str
    omitted_count: float
    omitted_aligned: bool
    omitted_forced: bool
    probe_bits: float
    null_bits: float | None
    recovered_bits: float | None


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A text, what the probe writes from the encoder's state after it, and the words compared.

    Attributes:
        text: as the encoder read it.
        reconstruction: greedily decoded, up to 16 tokens beyond the text's length.
        encoder: Hub id or name of the folder.
        probe: likewise.
        n_tokens: of the text.
        exact_match: whether all token ids agree.
        omission_rate: by rule (count, aligned, forced), over the words; None without a word.
        null_bits: of the whole text; None without a null probe.
        recovered_bits: likewise.
        words: in order.
    """

    text: str
    reconstruction: str
    encoder: str
    probe: str
    n_tokens: int
    exact_match: bool
    omission_rate: dict[str, float | None]
    null_bits: float | None
    recovered_bits: float | None
    words: tuple[ReconstructedWord, ...]

    def to_json(self) -> str:
        """Return all fields as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_text(self, *, bits: bool = False) -> str:
        """Return the text with omitted words in [brackets], and the reconstruction.

        Args:
            bits: also list the bits of every word.
        """
        lines = [self._marked(), "", f"reconstruction: {self.reconstruction}", self._summary()]
        return "\n".join([*lines, *(self._bit_lines() if bits else [])])

    def _marked(self) -> str:
        pieces, behind = [], 0
        for word in self.words:
            pieces += [self.text[behind : word.start]]
            surface = self.text[word.start : word.end]
            pieces += [f"[{surface}]" if word.omitted_aligned else surface]
            behind = word.end
        return "".join([*pieces, self.text[behind:]])

    def _summary(self) -> str:
        missing = sum(word.omitted_aligned for word in self.words)
        summary = (
            f"{missing} of {len(self.words)} words, in [brackets], are not recovered by this probe"
        )
        if self.null_bits:
            fraction = (self.recovered_bits or 0.0) / self.null_bits
            summary += f"; it recovers {self.recovered_bits:.1f} of {self.null_bits:.1f} bits"
            summary += f" ({fraction:.0%})"
        return summary

    def _bit_lines(self) -> Iterable[str]:
        width = max((len(word.text) for word in self.words), default=4)
        yield ""
        yield f"{'word':{width}}  {'null':>6}  {'probe':>6}  {'recovered':>9}"
        for word in self.words:
            yield (
                f"{word.text:{width}}  {_number(word.null_bits):>6}  "
                f"{_number(word.probe_bits):>6}  {_number(word.recovered_bits):>9}"
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def reconstruct(
    text: str,
    *,
    encoder: str | None = None,
    probe: str | None = None,
    null_probe: str | None = None,
    device: str | None = None,
) -> Reconstruction:
    """Load models, read the text and write it back.

    Args:
        text: at least one token, at most what the probe was trained for.
        encoder: Hub id or folder; the bundled mamba-tiny if None.
        probe: Hub id or folder; the bundled probe if None.
        null_probe: Hub id or folder; the bundled one if all three are None.
        device: None takes a GPU where there is one.

    Raises:
        InputError: text that is empty, too long or not UTF-8; an encoder without its probe;
            models that do not belong together.
    """
    if (encoder is None) != (probe is None):
        raise InputError("give --encoder and --probe together, or neither for the bundled models")
    if encoder is None or probe is None:
        encoder, probe = str(bundled_path("mamba-tiny")), str(bundled_path("mamba-tiny-probe"))
        null_probe = null_probe or str(bundled_path("mamba-tiny-null-probe"))
    _check_text(text)
    models, tokenizer = load_models(
        encoder, probe, null_probe, {}, device=find_processes(device).device
    )
    result = reconstruct_with(models, tokenizer, text)
    return replace(result, encoder=model_name(encoder), probe=model_name(probe))


def reconstruct_with(
    models: Models, tokenizer: PreTrainedTokenizerFast, text: str
) -> Reconstruction:
    """Return what loaded models make of a text; words are found by a pattern.

    Raises:
        InputError: text that is empty, too long or not UTF-8.
    """
    chunk = _single_chunk(text, tokenizer)
    longest = models.probe.config.max_chunk_tokens
    if chunk.length > longest:
        raise InputError(
            f"the text has {chunk.length} tokens, the probe was trained for up to {longest}; "
            "give a shorter text"
        )
    arrays = score_batch(models, torch.tensor([chunk.token_ids]), donors=None, means=None)
    written = until_eos(arrays["reconstruction"][0].tolist(), tokenizer.eos_token_id)
    argmax = arrays["argmax"][0, : chunk.length].astype(np.int32)
    [matched] = match_chunks([chunk], [written], [argmax], tokenizer, chance_draws=0)
    null_bits = _bits(arrays, "null", slice(0, chunk.length))
    probe_bits = _bits(arrays, "probe", slice(0, chunk.length))
    return Reconstruction(
        text=chunk.text,
        reconstruction=decode(tokenizer, written),
        encoder=models.encoder.config.name_or_path,
        probe=models.probe.name_or_path,
        n_tokens=chunk.length,
        exact_match=tuple(written) == chunk.token_ids,
        omission_rate={rule: _rate(getattr(matched, f"omitted_{rule}")) for rule in RULES},
        null_bits=null_bits,
        recovered_bits=_difference(null_bits, probe_bits),
        words=tuple(_words(chunk, matched, arrays)),
    )


def _single_chunk(text: str, tokenizer: PreTrainedTokenizerFast) -> Chunk:
    """Return the whole text as one chunk."""
    _check_text(text)
    [document] = split_documents([Document(doc_id="text", source="text", text=text)])
    tokenized = tokenize_document(document, tokenizer)
    return cut_chunk(tokenized, tokenizer, len(tokenized.token_ids), 0)


def _check_text(text: str) -> None:
    if not text.strip():
        raise InputError("the text is empty; give at least one word")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text is not UTF-8 at character {error.start}; give it in UTF-8"
        ) from error


def _words(chunk: Chunk, matched: Matched, arrays: Arrays) -> Iterable[ReconstructedWord]:
    for index, (word, (start, end)) in enumerate(zip(chunk.words, matched.spans, strict=True)):
        tokens = slice(word.token_start, word.token_end)
        null_bits, probe_bits = _bits(arrays, "null", tokens), _bits(arrays, "probe", tokens)
        yield ReconstructedWord(
            text=word.text,
            start=start,
            end=end,
            kind=word.kind,
            omitted_count=float(matched.omitted_count[index]),
            omitted_aligned=bool(matched.omitted_aligned[index]),
            omitted_forced=bool(matched.omitted_forced[index]),
            probe_bits=probe_bits or 0.0,
            null_bits=null_bits,
            recovered_bits=_difference(null_bits, probe_bits),
        )


def _bits(arrays: Arrays, name: str, tokens: slice) -> float | None:
    values = arrays.get(f"{name}_bits")
    return None if values is None else float(values[0, tokens].sum(dtype=np.float64))


def _difference(null_bits: float | None, probe_bits: float | None) -> float | None:
    return None if null_bits is None or probe_bits is None else null_bits - probe_bits


def _rate(omitted: Any) -> float | None:
    return float(np.mean(omitted, dtype=np.float64)) if len(omitted) else None
