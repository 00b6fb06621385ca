"""The report's plots as PNG bytes: drawn without pyplot, so nothing outside of a figure changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_NUMBERS_UP_TO, NAMES_UP_TO = 25, 150
LABEL_LENGTH = 22
SHARES = {"val_top1": "top-1, %", "val_map": "mAP, %", "val_miou": "mIoU, %"}  # of a curve, 0 to 1
_STYLES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 144  # a picture is shown at 96 pixels an inch or smaller, so it stays sharp on a fine screen


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a plot; ``right`` and ``wrong`` are the strong ends of the confusion matrix's two scales."""

    paper: str
    ink: str
    grid: str
    lines: tuple[str, str]
    right: str
    wrong: str


LIGHT = Theme("#ffffff", "#33383f", "#dde1e6", ("#1f6fb4", "#c2500b"), "#1f6fb4", "#c2500b")
DARK = Theme("#1b1e23", "#c9d0d8", "#3a4048", ("#6cb2f2", "#f5a05c"), "#5aa5ea", "#f5a05c")


def curve_plots(curve: Sequence[Mapping[str, float]], theme: Theme) -> dict[str, bytes]:
    """Title -> PNG: loss, accuracy and learning rate by epoch, each where the curve has it."""
    plots = {
        "Loss": {"training": "train_loss", "validation": "val_loss"},
        "Accuracy on the validation split": {"validation": "val_top1"},
        "mAP on the validation split": {"validation": "val_map"},
        "mIoU on the validation split": {"validation": "val_miou"},
        "Learning rate": {"learning rate": "lr"},
    }
    drawn = dict[str, bytes]()
    for title, series in plots.items():
        present = {name: key for name, key in series.items() if any(key in row for row in curve)}
        if present:
            drawn[title] = _curve_plot(curve, present, title, theme)
    return drawn


def _curve_plot(curve: Sequence[Mapping[str, float]], series: Mapping[str, str], title: str, theme: Theme) -> bytes:
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(4.2, 2.7, theme)
    styles = zip(series.items(), theme.lines, ("o", "s"), strict=False)
    for (name, key), colour, marker in styles:
        rows = [row for row in curve if key in row]
        x, y = [row["epoch"] for row in rows], [row[key] * (100 if key in SHARES else 1) for row in rows]
        marker = marker if len(x) <= 40 else ""
        axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.8, label=name)
        if key in SHARES:
            _mark_best(axes, x, y, theme)
    axes.set_xlabel("epoch")
    axes.set_ylabel(next((SHARES[key] for key in series.values() if key in SHARES), title.lower()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.margins(y=0.12)
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=theme.ink)
    return _png(figure)


def _mark_best(axes: "Axes", x: list[float], y: list[float], theme: Theme) -> None:
    """Say the highest point's value beside it, on the side where there is room."""
    best = int(np.argmax(y))
    left = x[best] > (x[0] + x[-1]) / 2
    axes.annotate(
        f"best {y[best]:.1f}%",
        (x[best], y[best]),
        xytext=(-6 if left else 6, 7),
        textcoords="offset points",
        ha="right" if left else "left",
        color=theme.ink,
    )


def confusion_plot(confusion: np.ndarray, classes: Sequence[str], theme: Theme) -> bytes:
    """PNG of a confusion matrix (integers [classes, classes], rows true).

    Colour is the share of the true class: blue on the diagonal, orange beside it, where a square root keeps rare
    mistakes visible. Up to 25 classes each cell also has its count; above 150 the axes have numbers, not names.
    """
    from matplotlib.colors import to_rgb

    n = len(classes)
    cell = 0.44 if n <= CELL_NUMBERS_UP_TO else 0.14 if n <= NAMES_UP_TO else 16 / n
    margin = 1.9 if n <= NAMES_UP_TO else 0.8
    figure, axes = _figure(cell * n + margin, cell * n + margin, theme)
    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    strength = np.sqrt(share)[..., None]
    strong = np.where(np.eye(n, dtype=bool)[..., None], to_rgb(theme.right), to_rgb(theme.wrong))
    axes.imshow(strength * strong + (1 - strength) * np.array(to_rgb(theme.paper)), interpolation="nearest")
    if n <= CELL_NUMBERS_UP_TO:
        for row, col in zip(*np.nonzero(confusion), strict=True):
            colour = theme.paper if strength[row, col] > 0.6 else theme.ink
            axes.text(col, row, str(confusion[row, col]), ha="center", va="center", color=colour, fontsize=9)
    if n <= NAMES_UP_TO:
        size = 9 if n <= CELL_NUMBERS_UP_TO else 6.5
        labels = axis_labels(classes)
        turn = 90 if max(map(len, labels)) > 3 else 0
        axes.set_xticks(range(n), labels, rotation=turn, fontsize=size, parse_math=False)
        axes.set_yticks(range(n), labels, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if n <= NAMES_UP_TO:
        edges, ends = np.arange(n + 1) - 0.5, (-0.5, n - 0.5)
        axes.hlines(edges, *ends, color=theme.grid, linewidth=0.5)
        axes.vlines(edges, *ends, color=theme.grid, linewidth=0.5)
    axes.tick_params(length=0)
    return _png(figure)


def precision_recall_plot(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], theme: Theme
) -> bytes:
    """PNG of the (recall, precision) of each class, 0 to 1: precision is that of the best point at this recall or more.

    With more classes than there are colours and dashes for: each in grey, and their mean.
    """
    figure, axes = _figure(4.2, 3.0, theme)
    recall_R = np.linspace(0, 1, 101)
    lines = [_at_least(recall_R, recall, precision) for recall, precision in curves]
    named = len(lines) <= len(_STYLES) * len(theme.lines)
    for number, (line_R, name) in enumerate(zip(lines, axis_labels(classes), strict=True)):
        colour, style = theme.lines[number % len(theme.lines)], _STYLES[number // len(theme.lines) % len(_STYLES)]
        x, y = 100 * recall_R, 100 * line_R
        if named:
            axes.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=name)
        else:
            axes.plot(x, y, color=theme.grid)
    if not named:
        axes.plot(100 * recall_R, 100 * np.mean(lines, 0), color=theme.lines[0], label=f"mean of {len(lines)} classes")
    axes.set_xlabel("boxes that are found (recall), %")
    axes.set_ylabel("of the found, right (precision), %")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 103)
    axes.grid(color=theme.grid, linewidth=0.8)
    legend = axes.legend(frameon=False, labelcolor=theme.ink, loc="lower left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _png(figure)


def _at_least(recall_R: np.ndarray, recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The best precision [R] with which at least each of ``recall_R`` is found; 0 where so much never is."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, recall_R, side="left")
    return np.append(best, 0.0)[places]


def axis_labels(classes: Sequence[str]) -> list[str]:
    """Class names short enough for an axis; a number (as in the table) for a name in a script that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    labels = list[str]()
    for index, name in enumerate(classes):
        short = name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"
        drawable = all(character.isprintable() and font.get_char_index(ord(character)) for character in short)
        labels.append(short if short.strip() and drawable else f"class {index}")
    return labels


def _figure(width: float, height: float, theme: Theme) -> "tuple[Figure, Axes]":
    """A figure of ``width`` x ``height`` inches with one pair of axes in the theme's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot(facecolor=theme.paper)
    axes.tick_params(colors=theme.ink, which="both")
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    for side, spine in axes.spines.items():
        spine.set_color(theme.grid)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
