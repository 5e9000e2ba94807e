"""A training step of one batch shape as one CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class GraphedBackward:
    """Forward and backward pass of one batch shape, captured once and replayed.

    Small models spend most of a step launching kernels; a replayed graph launches them at once.
    Gradients live in buffers of their own, shared by the graphs of all shapes.

    Args:
        loss: from windows (B, T) to the mean loss; nothing in it may wait for the device.
        model: its parameters get the gradients.
    """

    WARM_UP = 3  # passes before a capture, in which kernels are compiled and memory is taken

    def __init__(self, loss: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        self._loss = loss
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._gradients = [torch.zeros_like(p) for p in self._parameters]
        self._captured: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, windows: Tensor, weight: float) -> Tensor:
        """Add the gradients of `weight` times the loss of `windows`, and return that loss."""
        if self._parameters[0].grad is None:
            torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        key = (tuple(windows.shape), weight)
        if key not in self._captured:
            self._captured[key] = self._capture(windows, weight)
        graph, static_windows, loss = self._captured[key]
        static_windows.copy_(windows)
        graph.replay()
        return loss.clone()

    def _capture(
        self, windows: Tensor, weight: float
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        static_windows = windows.clone()
        before = [gradient.clone() for gradient in self._gradients]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                torch.autograd.backward(self._loss(static_windows) * weight)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()  # the graph takes its memory from a pool of its own
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._loss(static_windows) * weight
            torch.autograd.backward(loss)
        torch._foreach_copy_(self._gradients, before)
        return graph, static_windows, loss.detach()
