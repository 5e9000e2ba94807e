"""Figures of a report: colour-blind safe, every rate with its interval and its count."""

from selmem.figures.gallery import Drawn, draw_figures, draw_model_figure, pooled

__all__ = ["Drawn", "draw_figures", "draw_model_figure", "pooled"]
