"""The steps of the set-up, and their screens, imported when they are first shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

STEPS = ("model", "data", "precision", "training", "review")


def _model_screen() -> Screen[Any]:
    from tui_app.screens.model import ModelScreen

    return ModelScreen()


def _data_screen() -> Screen[Any]:
    from tui_app.screens.data import DataScreen

    return DataScreen()


def _precision_screen() -> Screen[Any]:
    from tui_app.screens.precision import PrecisionScreen

    return PrecisionScreen()


def _training_screen() -> Screen[Any]:
    from tui_app.screens.training import TrainingScreen

    return TrainingScreen()


def _review_screen() -> Screen[Any]:
    from tui_app.screens.review import ReviewScreen

    return ReviewScreen()


SCREENS: dict[str, Callable[[], Screen[Any]]] = {
    "model": _model_screen,
    "data": _data_screen,
    "precision": _precision_screen,
    "training": _training_screen,
    "review": _review_screen,
}
