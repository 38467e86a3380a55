"""METEOR (Denkowski and Lavie 2014), computed by its authors' Java program, which the extra `meteor` installs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from corpus import DataError


def meteor(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> tuple[float, list[float]]:
    """Return METEOR of the corpus and of each image, from English tokens.

    Raises DataError if Java or the extra is missing, or if the Java program fails.
    """
    if shutil.which("java") is None:
        raise DataError("METEOR is a Java program and there is no java; install a Java runtime, or leave --meteor out")
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError as error:
        raise DataError("METEOR needs pycocoevalcap; install the extra: pip install '.[meteor]'") from error
    images = range(len(candidates))
    reference_texts = {image: [" ".join(tokens) for tokens in references[image]] for image in images}
    candidate_texts = {image: [" ".join(candidates[image])] for image in images}
    scorer = Meteor()
    try:
        score, per_image = scorer.compute_score(reference_texts, candidate_texts)
    except (OSError, ValueError) as error:
        raise DataError("METEOR's Java program failed; try `java -version`") from error
    finally:
        process = scorer.meteor_p
        process.kill()
        process.communicate()
    return float(score), [float(value) for value in per_image]
