"""Titles and captions of the figures, in the order of a report."""

from collections.abc import Mapping
from typing import NamedTuple


class Words(NamedTuple):
    """What stands over a figure and below it."""

    title: str
    caption: str


CAPTIONS: Mapping[str, Words] = {
    "models": Words(
        "Models compared",
        "Words that greedy decoding does not recover, and the share of the null probe's bits "
        "that the state supplies, against chunk length. Each model has its own probe and null "
        "probe. Bands are 95 % intervals by document.",
    ),
    "retention_by_length": Words(
        "What comes back, by length",
        "Each line is one way of counting. Word and ROUGE scores give credit for words that "
        "any text would contain; retained over chance takes that out, and recovered bits also "
        "take out what the probe could have guessed from the words before. Bands are 95 % "
        "intervals by document.",
    ),
    "common_words": Words(
        "The same words, by length",
        "Only words that chunks of every length shown hold whole, so that each point rests on "
        "the same words of the same documents: what changes is how much other text the state "
        "had to hold. A word then stands at another place in its chunk.",
    ),
    "bits_by_length": Words(
        "Bits per token, with and without the state",
        "How surprised each reader is by a token when it is given the true text before it. "
        "The null probe was trained in the same way but sees no state; what the probe saves "
        "against it are the recovered bits. Where the null probe is worse than the encoder "
        "reading from an empty state, it is under-trained, and recovered bits are too high "
        "there.",
    ),
    "omission_by_pos": Words(
        "Words not recovered, by part of speech",
        "Greedy reconstruction, counted as in Hossain et al. 2025: a word is omitted if its "
        "surface does not stand in the reconstruction. A diamond marks how often that would "
        "happen by chance, against the reconstructions of other documents: a bar far left of "
        "its diamond means that the state kept something. n is the number of words; where "
        "fewer than 10 documents hold them it says how many, and there is no interval.",
    ),
    "omission_by_entity": Words(
        "Words not recovered, by entity",
        "As above, by entity type. Names have more tokens than other words, and a word is "
        "omitted if any token of it is wrong.",
    ),
    "omission_by_kind": Words(
        "Words not recovered, by kind of token",
        "As above, by what a word looks like: number, variable, operator, identifier and so on.",
    ),
    "recovered_by_class": Words(
        "Null bits recovered, by class",
        "The share of what the null probe could not predict that the state supplies. Unlike "
        "omission it gives no credit for chance and does not punish words of many tokens. The "
        "dashed line is the share over all words. Wide intervals may run off the axis.",
    ),
    "by_source": Words(
        "By source",
        "The same measure for every source of text, over all words that no chunk border cuts.",
    ),
    "by_position": Words(
        "By position in the chunk",
        "Left: tokens that are not the probe's best guess although it is given the true text "
        "before them, so that one error does not cause the next. Right: null bits recovered. "
        "Open markers leave out the last four positions, whose embeddings the first layer's "
        "convolution state holds almost verbatim.",
    ),
    "by_perplexity": Words(
        "By the encoder's perplexity",
        "Omission of chunks that surprise the encoder little or much, in bins with at least 3 "
        "chunks; grey bars show how many chunks each point stands for. The rank correlation "
        "is over chunks, its interval by document. The table `perplexity` has the paper's bins "
        "too.",
    ),
    "rarity": Words(
        "Rare words",
        "Spearman correlation of a word's frequency with what is lost of it: positive with "
        "omission would mean that frequent words are lost more. Over word types, and over the "
        "means of the parts of speech; raw, and with tokens (and characters) per word held "
        "fixed. n is the number of points.",
    ),
    "effects": Words(
        "Class, or rarity and tokens?",
        "How much more often words of a class are omitted than those of the most frequent "
        "class. Open circle: the plain difference. Filled: the average marginal effect in a "
        "regression that holds the number of tokens fixed, then also frequency, position, "
        "length and source, then also the null probe's bits. What shrinks to zero was "
        "explained by what was added. The 95 % intervals are clustered by document and by "
        "word, and are not adjusted for the number of classes. Punctuation and function words "
        "are hardly ever as rare as nouns (table `support`), so for them rarity is held fixed by "
        "extrapolation; the table `effects` also has the open classes alone.",
    ),
    "fates": Words(
        "What becomes of an omitted word",
        "Shares of the words omitted under the rule `aligned`: some tokens of it kept, other "
        "tokens in its place (of a word of the same class, of another class, or of no word "
        "that the annotation knows), or nothing in its place.",
    ),
    "calibration": Words(
        "Does the probe know when it is wrong?",
        "How often the probe's best guess is right, against the probability that it gives to "
        "it, the true text before it given. On the dashed line it is as sure as it should be. "
        "Grey bars show how many tokens each point stands for.",
    ),
    "controls": Words(
        "Controls",
        "Bits per token when a part of the state is replaced, or under probes trained on "
        "less. It shows what this probe relies on, not what the state holds. With another "
        "document's state the probe is misled rather than uninformed, so it may need far more "
        "bits than the null.",
    ),
    "controls_by_layer": Words(
        "Controls by layer",
        "How many more bits per token the probe needs when one layer's state comes from "
        "another document (other) or is a mean over texts of the length (mean).",
    ),
    "pairs": Words(
        "Two versions of the same text",
        "Loss of the first version minus loss of the second, paired by text: right of zero, "
        "the first loses more. Only pairs with similar numbers of tokens count.",
    ),
}
