from contextlib import contextmanager

import pytest
import torch

from selmem.probe.gpu_branches import Branches


class Streams:
    """Stands for CUDA streams: logs which waits for which, and on which work is launched."""

    def __init__(self, monkeypatch):
        self.log, self.current = [], "main"
        monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Stream(self, len(self.log)))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(self, self.current))
        monkeypatch.setattr(torch.cuda, "stream", self.on)

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, self.current if stream is None else stream.name
        yield
        self.current = before

    def branch(self, name, steps):
        for step in range(steps):
            self.log.append((self.current, f"{name}{step}"))
            yield


class Stream:
    def __init__(self, streams, name):
        self.streams, self.name = streams, name

    def wait_stream(self, other):
        self.streams.log.append((self.name, "waits for", other.name))


def test_branches_fork_take_turns_and_join(monkeypatch):
    streams = Streams(monkeypatch)
    Branches(torch.device("cuda")).run([streams.branch("a", 2), streams.branch("b", 3)])
    assert streams.log == [
        (0, "waits for", "main"),
        ("main", "a0"),
        (0, "b0"),
        ("main", "a1"),
        (0, "b1"),
        (0, "b2"),
        ("main", "waits for", 0),
    ]


def test_a_single_branch_needs_no_stream(monkeypatch):
    streams = Streams(monkeypatch)
    Branches(torch.device("cuda")).run([streams.branch("a", 2)])
    assert streams.log == [("main", "a0"), ("main", "a1")]


def test_streams_are_taken_up_again(monkeypatch):
    streams = Streams(monkeypatch)
    branches = Branches(torch.device("cuda"))
    for _ in range(2):
        branches.run([streams.branch("a", 1), streams.branch("b", 1)])
    assert len(branches._streams) == 1
    assert streams.log[:4] == streams.log[4:]


def test_without_cuda_branches_take_turns(monkeypatch):
    streams = Streams(monkeypatch)
    Branches(torch.device("cpu")).run([streams.branch(name, 1) for name in "abc"])
    assert streams.log == [("main", "a0"), ("main", "b0"), ("main", "c0")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_follows_sees_what_branches_of_a_graph_wrote():
    values = torch.zeros(3, 1 << 20, device="cuda")
    branches = Branches(values.device)

    def branch(row):
        for _ in range(5):
            row.add_(1)
            yield

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        branches.run([branch(row) for row in values])
        total = values.sum(0)
    graph.replay()
    assert bool((total == 15).all())
