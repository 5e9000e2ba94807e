"""Words whose omission follows the regression's model."""

import numpy as np
import pandas as pd


def simulated(rng, *, number_effect, n_documents=80, per_document=60):
    """Words whose omission follows the model: rate per token from rarity, and from the tag."""
    n = n_documents * per_document
    tag = rng.choice(["NOUN", "NUM"], n, p=[0.7, 0.3])
    frequency = rng.normal(-4 - 0.8 * (tag == "NUM"), 0.7, n)
    n_tokens = 1 + rng.binomial(3, np.where(tag == "NUM", 0.6, 0.2))
    document = np.repeat(np.arange(n_documents), per_document)
    linear = -4.5 - 0.8 * frequency + number_effect * (tag == "NUM")
    linear += rng.normal(0, 0.3, n_documents)[document]
    omitted = rng.random(n) < 1 - np.exp(-n_tokens * np.exp(linear))
    return pd.DataFrame(
        {
            "tag": tag,
            "word": np.char.add("w", rng.integers(0, 800, n).astype(str)),
            "document": document,
            "omitted_aligned": omitted.astype(float),
            "n_tokens": n_tokens,
            "log10_word_frequency": frequency,
            "place": rng.random(n),
            "late": 0.0,
            "length": 16,
            "source": "news",
            "null_per_token": -frequency + rng.normal(0, 0.3, n),
        }
    )
