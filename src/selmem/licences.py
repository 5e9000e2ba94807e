"""Licences of known corpora, and whether their text may be published again."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What may be done with the text of a corpus.

    Attributes:
        name: the licence, or what is known of it.
        republish: whether tables may be published with text, tokens, ids and words.
    """

    name: str
    republish: bool


UNKNOWN = Licence(name="unknown", republish=False)

_CC_BY_SA = "CC BY-SA"

LICENCES: Mapping[str, Licence] = {
    "arxiv_latex_stacks": Licence(name="GFDL", republish=True),
    "arxiv_like_acl_papers": Licence(name="CC BY 4.0", republish=True),
    "freelaw_opinions": Licence(name="public domain", republish=True),
    "stackexchange_qa": Licence(name=f"{_CC_BY_SA} 3.0", republish=True),
    "nih_exporter_sample": Licence(name="public domain (US government)", republish=True),
    "pubmed_central_craft": Licence(name="CC BY 3.0", republish=True),
    "pubmed_abstracts_detok": Licence(name="CC BY 4.0", republish=True),
    "enron_emails_raw": Licence(name=f"{_CC_BY_SA} 4.0", republish=True),
    "enron_emails_tokenised": Licence(name="none stated", republish=False),
    "github_code": Licence(name="PSF, BSD, MIT, Apache-2.0", republish=True),
    "dm_mathematics": Licence(name="Apache-2.0", republish=True),
    "fiction_novels": Licence(name="public domain and CC BY 4.0", republish=True),
    "wikipedia_en": Licence(name=f"{_CC_BY_SA} 3.0", republish=True),
    "web_ewt": Licence(name=f"{_CC_BY_SA} 4.0", republish=True),
    "web_reviews_imdb": Licence(name="research only", republish=False),
    "web_news_speech_mix": Licence(name="mixed", republish=False),
    "news_reuters21578": Licence(name="research only", republish=False),
    "conll2003": Licence(name="Reuters, research only", republish=False),
    "ud_ewt": Licence(name=f"{_CC_BY_SA} 4.0", republish=True),
    "gum": Licence(name="annotations CC BY 4.0, texts vary", republish=False),
    "aave": Licence(name="none stated", republish=False),
    "sae": Licence(name="none stated", republish=False),
    "gsm8k": Licence(name="MIT", republish=True),
    "humaneval": Licence(name="MIT", republish=True),
    "minerva_math": Licence(name="not verified", republish=False),
    "olympiadbench": Licence(name="not verified", republish=False),
    "svamp": Licence(name="not verified", republish=False),
    "selmem_sample": Licence(name="Apache-2.0", republish=True),  # the bundled sample text
}


def licence_of(source: str) -> Licence:
    """Return the licence of a corpus by its source name; unknown ones may not be republished.

    A name is the user's word for what the source holds: a private file is not to be given a name
    of the table. Endings that name a part (".eval", ".train", ".test", ".dev") are ignored.

    >>> licence_of("gsm8k").republish, licence_of("github_code.eval").republish
    (True, True)
    >>> licence_of("my_mails")
    Licence(name='unknown', republish=False)
    """
    name, _, part = source.rpartition(".")
    known_part = part in {"eval", "train", "test", "dev"}
    return LICENCES.get(name if known_part else source, UNKNOWN)
