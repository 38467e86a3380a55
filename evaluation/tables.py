"""Tables of results as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.pages import COLUMNS, format_cell

_COLUMN_WIDTH = 9  # characters


def systems_table(figures: dict[str, Any]) -> str:
    """Return the result of `captions` as text: one line per system, scores x 100; then intervals and the leave-one-out table."""
    rows = figures["systems"] | figures.get("baselines", {})
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in rows.values())]
    lines = _table_lines(rows, columns)
    first = next(iter(rows.values()))
    lines += ["", f"{first['images']} images, {first['tokens']}; 95 % intervals by bootstrap over the images:"]
    for name, row in figures["systems"].items():
        intervals = [f"{metric} {100 * low:.1f} to {100 * high:.1f}" for metric, (low, high) in row["intervals"].items()]
        lines.append(f"  {name}: {', '.join(intervals)}")
    for name, row in figures.get("baselines", {}).items():
        if "caption" in row:
            lines.append(f"  {name}: {row['caption']!r}")
    if leave_one_out := figures.get("leave_one_out"):
        lines += ["", "against all references but one, mean over the reference that is left out:"]
        lines += _table_lines(leave_one_out, ["CIDEr", "BLEU-4", "ROUGE-L"])
    return "\n".join(lines)


_NOT_SHARES = ("energy", "seconds")  # shown as they are
_METHOD_COLUMNS = {
    "pointing": "pointing",
    "center": "image center",
    "swapped": "swapped object",
    "energy": "energy",
    "patch_auroc": "patch AUROC",
    "box_iou": "box IoU",
    "attributes": "attributes",
    "flip": "flip",
    "random_weights": "random weights",
    "other_image": "other image",
    "seconds": "seconds",
}


def methods_table(methods: dict[str, dict[str, Any]]) -> str:
    """Return the figures of map methods as a Markdown table: shares x 100; energy and seconds per object as they are."""
    names = [name for name in _METHOD_COLUMNS if any(row.get(name) is not None for row in methods.values())]

    def cell(name: str, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.2f}" if name in _NOT_SHARES else f"{100 * value:.1f}"

    lines = [f"| method | {' | '.join(_METHOD_COLUMNS[name] for name in names)} |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| `{method}` | {' | '.join(cell(name, row.get(name)) for name in names)} |" for method, row in methods.items()]
    return "\n".join(lines)


def figures_text(figures: dict[str, Any], *, exact: bool = False) -> str:
    """Return nested results as indented text; floats are shares and are shown x 100, but for `exact` and a few."""
    return "\n".join(_figures_lines(figures, "", exact))


def _table_lines(rows: dict[str, dict[str, Any]], columns: Sequence[str]) -> list[str]:
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>{max(_COLUMN_WIDTH, len(name) + 2)}}" for name in columns)]
    for name, row in rows.items():
        cells = [f"{format_cell(row.get(column), column):>{max(_COLUMN_WIDTH, len(column) + 2)}}" for column in columns]
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def _figures_lines(figures: dict[str, Any], indent: str, exact: bool) -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_figures_lines(value, indent + "  ", exact)]
        elif isinstance(value, float):
            plain = exact or name in _NOT_SHARES
            lines.append(f"{indent}{name:<12} " + (f"{value:.6g}" if plain else f"{100 * value:6.1f}"))
        elif isinstance(value, list) and value and all(isinstance(item, float) for item in value):
            items = [f"{item:.6g}" if exact else f"{100 * item:.1f}" for item in value]
            lines.append(f"{indent}{name:<12} " + " … ".join(items))
        else:
            lines.append(f"{indent}{name:<12} {value}")
    return lines
