"""The card of the embedded checkpoint, written from its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("card.md")

_LANGUAGES = {"zh": "Chinese (by character)", "ar": "Arabic", "hi": "Hindi"}


def card(figures: Mapping[str, Figures], values: Mapping[str, Any]) -> str:
    """Return the card. `figures` are results of `python -m evaluation` by name, `values` those of the template."""
    parts = [
        _captions("COCO photographs (val)", "None of their captions was trained on", figures["coco"]),
        _captions("Flickr8k test", "Five references", figures["flickr8k"]),
        _scenes(figures["scenes"]),
    ]
    languages = {name: figures[name] for name in _LANGUAGES if name in figures}
    if languages:
        parts.append(_other_languages(languages))
    parts.append(_maps(figures["maps_coco"], figures["maps_scenes"]))
    parts.append(_confidence(figures["calibration"]))
    return TEMPLATE.read_text(encoding="utf-8").format(tables="\n".join(parts), **values)


def _captions(title: str, note: str, figures: Figures) -> str:
    count = next(iter(figures["systems"].values()))["images"]
    lines = [f"**{title}**: {count:,} images. {note}.", "", "| | CIDEr | BLEU-4 | CHAIRi |", "|---|---|---|---|"]
    for name, row in {**figures["systems"], **figures.get("baselines", {})}.items():
        lines.append(f"| {name} | {_with_interval(row, 'CIDEr')} | {_percent(row['BLEU-4'])} | {_percent(row.get('CHAIRi'))} |")
    if human := figures.get("leave_one_out", {}).get("human"):
        lines.append(f"| human, against the other references | {_percent(human['CIDEr'])} | {_percent(human['BLEU-4'])} | |")
    return "\n".join(lines) + "\n"


def _scenes(figures: Figures) -> str:
    ((name, sets),) = figures.items()
    lines = [f"**Synthetic scenes**, {name}: every object, and a true relation.", "", "| | right |", "|---|---|"]
    for kind, values in sets.items():
        lines.append(f"| {kind.replace('_', ' ')}, {values['scenes']} scenes | {_percent(values['right'])} % |")
    return "\n".join(lines) + "\n"


def _other_languages(figures: Mapping[str, Figures]) -> str:
    lines = ["**Other languages**, Flickr8k test, beam 3; offered if they are better than one caption for all images.", ""]
    lines += ["| | CIDEr | best constant caption |", "|---|---|---|"]
    for name, one in figures.items():
        own, constant = next(iter(one["systems"].values())), one["baselines"]["best constant caption"]
        lines.append(f"| {_LANGUAGES[name]} | {_with_interval(own, 'CIDEr')} | {_percent(constant['CIDEr'])} |")
    return "\n".join(lines) + "\n"


def _maps(coco: Figures, scenes: Figures) -> str:
    rows = {
        "pointing": "pointing",
        "image center": "center",
        "swapped object (chance 50)": "swapped",
        "patch AUROC": "patch_auroc",
        "box IoU": "box_iou",
        "color words nearest to their own object": "attributes",
        "mirror image": "flip",
        "random weights (0 is right)": "random_weights",
        "words that lose most without the map's patches": "deletion_wins",
        "words that lose most without their own object": "erased",
        "rank correlation with hidden squares": "pixel_occlusion",
    }
    counts = f"{coco['objects']} objects of photographs and {scenes['objects']} of scenes"
    lines = [f"**Maps**, x 100, of {counts}.", "", "| | COCO photographs | synthetic scenes |", "|---|---|---|"]
    for title, key in rows.items():
        if key in coco or key in scenes:
            lines.append(f"| {title} | {_percent(coco.get(key))} | {_percent(scenes.get(key))} |")
    sizes = [figures.get("by_size") or {} for figures in (coco, scenes)]
    for name in dict.fromkeys([*sizes[0], *sizes[1]]):
        cells = [_percent(own.get(name, {}).get("pointing")) for own in sizes]
        lines.append(f"| pointing, objects {name} of the image | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _confidence(figures: Figures) -> str:
    count, above = figures["captions"]["count"], figures["abstract_images_above_median"]
    lines = [f"**Confidence**, fitted on Flickr8k's validation split, judged on {count:,} images of its test split.", ""]
    lines += ["| | calibration error | AUROC | share at 90 % precision |", "|---|---|---|---|"]
    for name, title in (("captions", "captions"), ("words", "words"), ("object_words", "words that name objects")):
        row = figures[name] or {}  # none if all cases are right
        cells = [_percent(row.get(key)) for key in ("expected_error", "auroc", "coverage_at_90")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{_percent(above)} % of images that are no photographs are above photographs' median (50: no difference).",
    ]
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _with_interval(row: Figures, name: str) -> str:
    low, high = row["intervals"][name]
    return f"{_percent(row[name])} ({_percent(low)} to {_percent(high)})"
