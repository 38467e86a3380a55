"""METEOR (Denkowski and Lavie 2014) by its authors' Java program, which pycocoevalcap carries: the extra `meteor`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from corpus import DataError


def meteor(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> tuple[float, list[float]]:
    """Return METEOR of the corpus and of each image, of tokens in English.

    Raises DataError where Java or the extra is missing.
    """
    if shutil.which("java") is None:
        raise DataError("METEOR is a Java program and there is no java; install a Java runtime, or leave --meteor out")
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError as error:
        raise DataError("METEOR needs pycocoevalcap; install the extra: pip install '.[meteor]'") from error
    images = range(len(candidates))
    known = {image: [" ".join(tokens) for tokens in references[image]] for image in images}
    given = {image: [" ".join(candidates[image])] for image in images}
    program = Meteor()
    try:
        score, alone = program.compute_score(known, given)
    except (OSError, ValueError) as error:
        raise DataError(f"METEOR's Java program failed ({error}); try `java -version`") from error
    finally:
        process = program.meteor_p
        process.kill()
        process.communicate()
    return float(score), [float(value) for value in alone]
