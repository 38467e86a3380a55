"""Accuracy of captions of synthetic scenes, which are judged exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from corpus import SCENE_SPLITS, Scene, draw_scene, judge


def held_out_scenes(count: int, *, unseen: bool = False) -> list[Scene]:
    """Return scenes of the test series, which training never samples; `unseen`: with color-shape pairs that training excludes."""
    return [draw_scene(SCENE_SPLITS["test"], number, unseen=unseen) for number in range(count)]


def judge_captions(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, object]:
    """Return the share of right captions, overall and by number of objects, and the most common errors of the others."""
    verdicts = [judge(text, scene) for text, scene in zip(captions, scenes, strict=True)]
    counts = Counter(len(scene.objects) for scene in scenes)
    right = Counter(len(scene.objects) for scene, verdict in zip(scenes, verdicts, strict=True) if verdict.right)
    reasons = Counter(verdict.reason.split(":")[0] for verdict in verdicts if not verdict.right)
    return {
        "scenes": len(scenes),
        "right": sum(right.values()) / len(scenes),
        "right_by_objects": {str(number): right[number] / counts[number] for number in sorted(counts)},
        "wrong": dict(reasons.most_common(8)),
    }
