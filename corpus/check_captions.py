"""Checks of captions: empty, one word, too long, repeated, in another script than that of their language."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from corpus.example import Example
from corpus.findings import Case, Finding, findings_of

_MAX_WORDS = 60  # words, or characters of a language without spaces; training truncates far earlier
_SHARED_RATIO = 0.01  # a caption that this share of the images has in common says nothing about them
_MIN_SHARED = 10  # images
_MIXED_RATIO = 0.01  # spelling is mixed if both variants have at least this share

# The scripts of languages, as the first word of a character's Unicode name. Other languages: the script of most captions.
_SCRIPTS = {
    "ar fa ur ps ckb": "ARABIC",
    "bn as": "BENGALI",
    "el": "GREEK",
    "he": "HEBREW",
    "hi mr ne sa": "DEVANAGARI",
    "hy": "ARMENIAN",
    "ja": "CJK HIRAGANA KATAKANA",
    "ka": "GEORGIAN",
    "ko": "HANGUL CJK",
    "ru uk bg be mk mn kk": "CYRILLIC",
    "ta": "TAMIL",
    "te": "TELUGU",
    "th": "THAI",
    "zh": "CJK",
    "en de fr es pt it nl sv da no nb fi pl cs sk hu ro tr vi id ms sw et lv lt hr sl sq ca eu gl is ga cy af": "LATIN",
}
_SCRIPTS_BY_LANGUAGE = {language: script.split() for languages, script in _SCRIPTS.items() for language in languages.split()}
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "THAI")


def check_captions(examples: Sequence[Example], language: str = "") -> list[Finding]:
    """Return the findings about the captions of all examples; `language` is the language of captions without a tag."""
    empty, one_word, long, repeated, other_script = ([] for _ in range(5))
    without_captions = [
        Case(example.origin, f"{example.image_id!r} has no caption", (example,)) for example in examples if not example.references
    ]
    usual = _usual_scripts(examples)
    for example in examples:
        occurrences: Counter[tuple[str, str]] = Counter()
        for case, text, tag in _captions(example):
            num_words = _num_words(text)
            if num_words == 0:
                empty.append(case)
            elif num_words == 1:
                one_word.append(case)
            elif num_words > _MAX_WORDS:
                long.append(case)
            occurrences[tag, text.casefold().rstrip(" .")] += 1
            if text and occurrences[tag, text.casefold().rstrip(" .")] == 2:
                repeated.append(case)
            scripts = scripts_of(text)
            expected = _expected_scripts(tag or language, usual)
            others = {script: count for script, count in scripts.items() if script not in expected}
            if 2 * sum(others.values()) > scripts.total():
                script = max(others, key=lambda script: others[script]).capitalize()
                other_script.append(Case(case.origin, f"{case.text} is written in {script}", case.examples))
    return [
        *findings_of(
            "warning", "captions in another script than their language", "Correct the language, or remove them.", other_script
        ),
        *findings_of("warning", "captions without a letter or digit", "Remove them: a model learns nothing from them.", empty),
        *findings_of("warning", "images without captions", "Training and scoring ignore them.", without_captions),
        *findings_of(
            "warning", f"captions of more than {_MAX_WORDS} words", "Training truncates them. Check that they are captions.", long
        ),
        *findings_of("warning", "captions that an image has twice", "The second one adds nothing.", repeated),
        *_shared_captions(examples),
        *_missing_languages(examples),
        *findings_of("note", "captions of one word", "A model that trains on them writes short captions.", one_word),
        *_mixed_spelling(examples),
    ]


def scripts_of(text: str) -> Counter[str]:
    """Return the number of letters (and vowel signs) per script: the first word of their Unicode names."""
    return Counter(script for script in map(_script, text) if script)


@lru_cache(maxsize=8192)
def _script(character: str) -> str:
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(character, "UNKNOWN").split()[0]
    return {"FULLWIDTH": "LATIN", "COMBINING": "", "VARIATION": ""}.get(name, name)


def _captions(example: Example) -> Iterator[tuple[Case, str, str]]:
    captions = zip(example.references, example.languages, example.origins, strict=True)
    for number, (text, language, origin) in enumerate(captions, start=1):
        suffix = f" in {language}" if language else ""
        yield Case(origin, f"{example.image_id!r}, caption {number}{suffix}, {text[:80]!r}", (example,)), text, language


def _num_words(text: str) -> int:
    """Return the number of words of a caption, or of characters if its script has no spaces."""
    scripts = scripts_of(text)
    if 2 * sum(scripts[script] for script in _UNSPACED_SCRIPTS) > scripts.total():
        return sum(map(str.isalnum, text))
    return sum(any(map(str.isalnum, word)) for word in text.split())


def _usual_scripts(examples: Sequence[Example]) -> dict[str, str]:
    """Return the script of most letters, by language."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for text, language in zip(example.references, example.languages, strict=True):
            counts[language].update(scripts_of(text))
    return {language: scripts.most_common(1)[0][0] for language, scripts in counts.items() if scripts}


def _expected_scripts(language: str, usual: dict[str, str]) -> list[str]:
    return _SCRIPTS_BY_LANGUAGE.get(language.lower().split("-")[0]) or usual.get(language, "").split()


def _missing_languages(examples: Sequence[Example]) -> list[Finding]:
    """Return the images that have captions, but none in one of the languages of the data."""
    languages = {language for example in examples for language in example.languages}
    cases = [
        Case(example.origin, f"{example.image_id!r} has no caption in {language}", (example,))
        for example in examples
        for language in sorted(languages - set(example.languages))
        if example.references and language
    ]
    advice = "Training and scoring in that language ignore them."
    return findings_of("note", "images without a caption in one of the languages", advice, cases)


def _shared_captions(examples: Sequence[Example]) -> list[Finding]:
    """Return the captions that many images have in common."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, Example]] = {}
    for example in examples:
        for text, origin in dict(zip(example.references, example.origins, strict=True)).items():
            counts[text] += 1
            first.setdefault(text, (origin, example))
    threshold = max(_MIN_SHARED, _SHARED_RATIO * len(examples))
    cases = [
        Case(first[text][0], f"{text[:80]!r} is a caption of {count:,} images", (first[text][1],))
        for text, count in counts.most_common()
        if count >= threshold and text
    ]
    return findings_of("warning", "captions that many images share", "They say nothing about the image. Remove them.", cases)


def _mixed_spelling(examples: Sequence[Example]) -> list[Finding]:
    """Return a note if capitals or full stops are mixed: training removes both, other programs do not."""
    texts = [text for example in examples for text in example.references if text and text[0].lower() != text[0].upper()]
    cases = []
    for description, share in (
        ("start with a capital", sum(text[0].isupper() for text in texts) / max(1, len(texts))),
        ("end with a full stop", sum(text.endswith(".") for text in texts) / max(1, len(texts))),
    ):
        if _MIXED_RATIO < share < 1 - _MIXED_RATIO:
            cases.append(Case("", f"{100 * share:.1f} % of the {len(texts):,} captions {description}, the others do not"))
    advice = "Training here converts to lower case and removes the last full stop. Other programs learn both spellings."
    return findings_of("note", "mixed capitals and full stops", advice, cases)
