import math

import pytest
import torch

from selmem.channel import ErasureChannel
from selmem.errors import InputError

WORDS = (5, 6, 7, 8)
RESERVED = 19
# tokens 10 to 14 continue a word, all others begin one
BEGINS_WORD = [not 10 <= token <= 14 for token in range(20)]


def channel(erasure=0.5, seed=0):
    return ErasureChannel(WORDS, BEGINS_WORD, reserved=RESERVED, erasure=erasure, seed=seed)


def texts(n=4000, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 15, (n, length), generator=generator)


def test_slots_are_the_words_of_the_class_that_a_new_word_follows():
    sent = channel()(torch.tensor([[5, 1, 6, 10, 7, 8, 2, 5]]))
    # 6 goes on with 10, and what follows the last 5 is not known
    assert sent.slots.tolist() == [[True, False, False, False, True, True, False, False]]


def test_only_slots_change_and_only_erased_ones_are_hidden():
    windows = texts()
    sent = channel()(windows)
    assert torch.equal(sent.target[~sent.slots], windows[~sent.slots])
    assert torch.isin(sent.target[sent.slots], torch.tensor(WORDS)).all()
    assert torch.equal(sent.read[~sent.erased], sent.target[~sent.erased])
    assert (sent.read[sent.erased] == RESERVED).all()
    assert not (sent.erased & ~sent.slots).any()


@pytest.mark.parametrize("erasure", [0.0, 0.25, 1.0])
def test_slots_are_erased_as_often_as_the_channel_says(erasure):
    sent = channel(erasure)(texts())
    share = sent.erased.sum() / sent.slots.sum()
    assert share == pytest.approx(erasure, abs=0.02 if 0 < erasure < 1 else 0)


def test_draws_are_uniform_and_do_not_depend_on_what_stood_there_nor_on_the_erasure():
    windows = texts()
    sent = channel()(windows)
    n = int(sent.slots.sum())
    joint = torch.zeros(20, 20)
    joint.index_put_((windows[sent.slots], sent.target[sent.slots]), torch.ones(n), accumulate=True)
    cells = joint[list(WORDS)][:, list(WORDS)] / n
    # the standard error of a share of 1/16 among n
    assert cells.sub(1 / 16).abs().max() < 5 * math.sqrt(1 / 16 / n)
    erased = torch.bincount(sent.target[sent.erased], minlength=20)[list(WORDS)] / sent.erased.sum()
    assert erased.sub(1 / 4).abs().max() < 0.03
    assert torch.equal(sent.target, channel(erasure=1.0)(windows).target)


def test_neighbouring_slots_are_drawn_independently():
    sent = channel()(texts())
    both = sent.slots[:, :-1] & sent.slots[:, 1:]
    same = (sent.target[:, :-1] == sent.target[:, 1:])[both].float().mean()
    assert same == pytest.approx(1 / 4, abs=0.03)


def test_same_text_and_seed_give_the_same_and_another_seed_does_not():
    windows = texts()
    one, again, other = channel()(windows), channel()(windows[:7]), channel(seed=5)(windows)
    assert torch.equal(one.target[:7], again.target)
    assert torch.equal(one.read[:7], again.read)
    assert not torch.equal(one.target, other.target)


def test_a_channel_comes_back_from_its_summary():
    again = ErasureChannel.from_summary(channel().summary())
    assert torch.equal(again(texts()).read, channel()(texts()).read)


def test_a_channel_without_choice_is_refused():
    with pytest.raises(InputError, match="at least 2 words and an erasure from 0 to 1"):
        ErasureChannel([3], BEGINS_WORD, reserved=0, erasure=0.5)
    with pytest.raises(InputError, match=r"got 4 and 1\.5"):
        channel(erasure=1.5)
