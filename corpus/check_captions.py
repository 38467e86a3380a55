"""What is wrong with captions: empty, one word, too long, repeated, in another script than their language is written in."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from corpus.example import Example
from corpus.findings import Case, Finding, finding

_LONG = 60  # words, or characters of a language without spaces; training cuts off far earlier
_EVERYWHERE = 0.01  # a caption that so many pictures share says nothing about them
_FEWEST = 10  # pictures
_MIXED = 0.01  # where both spellings have at least this share, the data is of two minds

# The scripts of languages, as the first word of a character's Unicode name. Others are held to the script of most captions.
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
_SCRIPT_OF = {language: script.split() for languages, script in _SCRIPTS.items() for language in languages.split()}
_UNSPACED = ("CJK", "HIRAGANA", "THAI")


def check_captions(examples: Sequence[Example], language: str = "") -> list[Finding]:
    """Return what is worth knowing about the captions of all examples; `language` is of those whose own is not told."""
    empty, single, long, repeated, foreign = ([] for _ in range(5))
    silent = [
        Case(example.where, f"{example.image_id!r} has no caption", (example,)) for example in examples if not example.references
    ]
    usual = _usual_scripts(examples)
    for example in examples:
        seen: Counter[tuple[str, str]] = Counter()
        for case, text, told in _captions(example):
            words = _length(text)
            if words == 0:
                empty.append(case)
            elif words == 1:
                single.append(case)
            elif words > _LONG:
                long.append(case)
            seen[told, text.casefold().rstrip(" .")] += 1
            if text and seen[told, text.casefold().rstrip(" .")] == 2:
                repeated.append(case)
            scripts = scripts_of(text)
            others = {script: count for script, count in scripts.items() if script not in _expected(told or language, usual)}
            if 2 * sum(others.values()) > scripts.total():
                most = max(others, key=lambda script: others[script]).capitalize()
                foreign.append(Case(case.where, f"{case.text} is written in {most}", case.examples))
    return [
        *finding(
            "warning", "captions in another script than their language", "Correct the language, or leave them out.", foreign
        ),
        *finding("warning", "captions without a letter or digit", "Leave them out: nothing can be learnt from them.", empty),
        *finding("warning", "pictures without a caption", "Training and scoring leave them out.", silent),
        *finding(
            "warning", f"captions of more than {_LONG} words", "Training cuts them off; look whether they are captions.", long
        ),
        *finding("warning", "captions told twice of one picture", "The second one teaches nothing new.", repeated),
        *_shared(examples),
        *_without(examples),
        *finding("note", "captions of one word", "They teach a captioner to be short.", single),
        *_spelling(examples),
    ]


def scripts_of(text: str) -> Counter[str]:
    """Return how many letters of a text, vowel signs too, belong to each script: the first word of their Unicode names."""
    return Counter(script for script in map(_script, text) if script)


@lru_cache(maxsize=8192)
def _script(character: str) -> str:
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(character, "UNKNOWN").split()[0]
    return {"FULLWIDTH": "LATIN", "COMBINING": "", "VARIATION": ""}.get(name, name)


def _captions(example: Example) -> Iterator[tuple[Case, str, str]]:
    captions = zip(example.references, example.languages, example.sources, strict=True)
    for place, (text, language, where) in enumerate(captions, start=1):
        told = f" in {language}" if language else ""
        yield Case(where, f"{example.image_id!r}, caption {place}{told}, {text[:80]!r}", (example,)), text, language


def _length(text: str) -> int:
    """Return a caption's words; in a script without spaces its characters."""
    scripts = scripts_of(text)
    if 2 * sum(scripts[script] for script in _UNSPACED) > scripts.total():
        return sum(map(str.isalnum, text))
    return sum(any(map(str.isalnum, word)) for word in text.split())


def _usual_scripts(examples: Sequence[Example]) -> dict[str, str]:
    """Return the script of most letters, by language."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for text, language in zip(example.references, example.languages, strict=True):
            found[language].update(scripts_of(text))
    return {language: scripts.most_common(1)[0][0] for language, scripts in found.items() if scripts}


def _expected(language: str, usual: dict[str, str]) -> list[str]:
    return _SCRIPT_OF.get(language.lower().split("-")[0]) or usual.get(language, "").split()


def _without(examples: Sequence[Example]) -> list[Finding]:
    """Return pictures that have captions, but none in one of the languages of the data."""
    told = {language for example in examples for language in example.languages}
    cases = [
        Case(example.where, f"{example.image_id!r} has no caption in {language}", (example,))
        for example in examples
        for language in sorted(told - set(example.languages))
        if example.references and language
    ]
    return finding("note", "pictures without a caption in one of the languages", "They are left out in that language.", cases)


def _shared(examples: Sequence[Example]) -> list[Finding]:
    """Return captions that many pictures share."""
    pictures: Counter[str] = Counter()
    first: dict[str, tuple[str, Example]] = {}
    for example in examples:
        for text, where in dict(zip(example.references, example.sources, strict=True)).items():
            pictures[text] += 1
            first.setdefault(text, (where, example))
    most = max(_FEWEST, _EVERYWHERE * len(examples))
    cases = [
        Case(first[text][0], f"{text[:80]!r} is told of {count:,} pictures", (first[text][1],))
        for text, count in pictures.most_common()
        if count >= most and text
    ]
    return finding("warning", "captions that many pictures share", "They say nothing about the picture; leave them out.", cases)


def _spelling(examples: Sequence[Example]) -> list[Finding]:
    """Return a note where capitals and full stops vary: training lower-cases and drops the stop, other programs do not."""
    texts = [text for example in examples for text in example.references if text and text[0].lower() != text[0].upper()]
    notes = []
    for what, share in (
        ("begin with a capital", sum(text[0].isupper() for text in texts) / max(1, len(texts))),
        ("end in a full stop", sum(text.endswith(".") for text in texts) / max(1, len(texts))),
    ):
        if _MIXED < share < 1 - _MIXED:
            notes.append(Case("", f"{100 * share:.1f} % of the {len(texts):,} captions {what}, the others do not"))
    advice = "Training here lower-cases and drops the last full stop; other programs learn both spellings."
    return finding("note", "capitals and full stops vary", advice, notes)
