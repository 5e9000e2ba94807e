import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from largest_result import LargestResult
from selmem.probe.linear_cross_entropy import forced_statistics, linear_cross_entropy

TOKENS, HIDDEN, VOCABULARY = 14, 6, 11


def operands(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, TOKENS // 2, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (2, TOKENS // 2), generator=generator)
    labels[0, 1] = labels[1, 4] = -100
    return hidden, weight, labels


def plain(hidden, weight, labels):
    logits = (hidden @ weight.t()).flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), reduction="sum")


@pytest.mark.parametrize("chunk_tokens", [None, 1, 3, 14, 100])
def test_value_and_gradients_match_cross_entropy(chunk_tokens):
    hidden, weight, labels = operands()
    ours = linear_cross_entropy(hidden, weight, labels, chunk_tokens=chunk_tokens)
    theirs = plain(hidden, weight, labels)
    assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    grads = [torch.autograd.grad(3 * loss, (hidden, weight)) for loss in (ours, theirs)]
    assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_no_gradient_is_computed_for_a_frozen_weight():
    hidden, weight, labels = operands()
    loss = linear_cross_entropy(hidden, weight.detach(), labels)
    assert_close(*(torch.autograd.grad(f, hidden) for f in (loss, plain(hidden, weight, labels))))


def test_without_gradients_there_is_one_product():
    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.mm.default
            return function(*args, **(kwargs or {}))

    operation, counts = linear_cross_entropy, []
    for context in (torch.no_grad(), torch.enable_grad()):
        with context, Products() as products:
            operation(*operands())
        counts.append(products.count)
    assert counts == [1, 3]


def test_without_gradients_the_value_is_the_same():
    hidden, weight, labels = operands()
    with torch.no_grad():
        assert_close(linear_cross_entropy(hidden, weight, labels), plain(hidden, weight, labels))


def test_all_labels_ignored_gives_zero():
    hidden, weight, labels = operands()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, -100))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()


def test_autocast_rounds_the_products_and_returns_float32_gradients():
    hidden, weight, labels = operands(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels, chunk_tokens=4)
    loss.backward()
    exact = torch.autograd.grad(plain(hidden, weight, labels), (hidden, weight))
    assert loss.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
    assert loss != plain(hidden, weight, labels)
    assert_close(loss, plain(hidden, weight, labels), rtol=1e-2, atol=0)
    assert_close((hidden.grad, weight.grad), exact, rtol=0.05, atol=0.05)


def test_softmax_of_half_precision_logits_is_taken_in_float32():
    hidden, weight, labels = operands(torch.bfloat16)
    logits = (hidden @ weight.t()).flatten(0, 1)
    exact = F.cross_entropy(logits.float(), labels.flatten(), reduction="sum")
    loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.dtype == torch.float32
    assert_close(loss, exact, rtol=1e-6, atol=0)
    ours, theirs = (torch.autograd.grad(f, hidden)[0] for f in (loss, exact))
    assert_close(ours.float(), theirs.float(), rtol=0.02, atol=0.02)


def test_no_more_than_a_chunk_of_logits_exists():
    hidden, weight, labels = operands()
    with LargestResult() as mode:
        linear_cross_entropy(hidden, weight, labels, chunk_tokens=2).backward()
    assert mode.largest <= max(weight.numel(), hidden.numel())


@pytest.mark.parametrize("chunk_tokens", [None, 1, 3])
def test_forced_statistics_are_those_of_the_softmax(chunk_tokens):
    hidden, weight, labels = operands()
    nll, best, probability = forced_statistics(hidden, weight, labels, chunk_tokens=chunk_tokens)
    probabilities = (hidden @ weight.t()).softmax(-1)
    counted = labels != -100
    expected = -probabilities[counted].gather(1, labels[counted][:, None]).squeeze(1).log()
    assert_close(nll[counted], expected.float())
    assert not nll[~counted].any()
    assert torch.equal(best, probabilities.argmax(-1))
    assert_close(probability, probabilities.amax(-1).float())
    assert nll.dtype == probability.dtype == torch.float32


def test_forced_statistics_of_half_precision_logits_are_float32():
    hidden, weight, labels = operands(torch.bfloat16)
    logits = (hidden @ weight.t()).flatten(0, 1).float()
    nll, _, probability = forced_statistics(hidden, weight, labels)
    expected = F.cross_entropy(logits, labels.flatten(), reduction="none")
    assert_close(nll.flatten(), expected, rtol=1e-6, atol=1e-6)
    assert_close(probability.flatten(), logits.softmax(-1).amax(-1), rtol=1e-6, atol=0)


def test_a_certain_and_wrong_model_has_a_finite_loss():
    hidden, weight = torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0]])
    nll, best, probability = forced_statistics(hidden, weight, torch.tensor([1]))
    assert (nll.item(), best.item(), probability.item()) == (2e4, 0, 1.0)
