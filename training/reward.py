"""The reward of captions in self-critical training: CIDEr of the training captions, less what is not in the image.

A class that the caption names, and that neither the object detector nor a training caption of the image names, costs a fixed
amount: CIDEr alone rewards a frequent object that is not there (Rohrbach et al. 2018, "Object Hallucination in Image
Captioning", section 4). The end of a caption is a token of its n-grams: else captions that stop in the middle, "a man with a",
cost nothing (Luo et al. 2018, "Discriminability objective", section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evaluation import CiderScorer, coco_synonyms, tokenize_caption

HALLUCINATION = 0.3  # of the reward, for each class that is named and not in the image
END = "</s>"  # no word of a caption: its tokenizer removes such signs
MIN_SCORE = 0.15  # a class with a weaker detection is not in the image


class CaptionReward:
    """Rewards of captions of known images."""

    def __init__(self, references: Mapping[str, Sequence[str]], classes: Mapping[str, frozenset[str]] | None = None) -> None:
        """`references` are captions by image; `classes` are those that a detector finds, by image: images that are not in it lose
        nothing by what a caption names.
        """
        self._references = {image: [[*tokenize_caption(text), END] for text in texts] for image, texts in references.items()}
        self._cider = CiderScorer(list(self._references.values()))
        self._synonyms = coco_synonyms()
        self._classes = {  # a detector misses what a person names: that is no hallucination
            image: own.union(*(self._synonyms.mentions(text) for text in references.get(image, ())))
            for image, own in (classes or {}).items()
        }

    def __contains__(self, image: object) -> bool:
        return image in self._references

    def __call__(self, images: Sequence[str], captions: Sequence[str], is_finished: Sequence[bool]) -> Tensor:
        """Return the reward of each caption of an image (N,) float64, which may have been cut before its end.

        CIDEr of 1.0 is 100 in tables.
        """
        tokens = [[*tokenize_caption(text), *([END] if ends else [])] for text, ends in zip(captions, is_finished, strict=True)]
        rewards = torch.from_numpy(self._cider(tokens, [self._references[image] for image in images]))
        wrong = [len(self._hallucinated(image, caption)) for image, caption in zip(images, captions, strict=True)]
        return rewards - HALLUCINATION * torch.tensor(wrong, dtype=torch.float64)

    def _hallucinated(self, image: str, caption: str) -> set[str]:
        """Return the classes that a caption names and that are not in the image."""
        if image not in self._classes:
            return set()
        return set(self._synonyms.mentions(caption)) - self._classes[image]
