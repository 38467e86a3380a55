"""The Penn Treebank tokens that published caption scores are computed on, without their Java.

The reference is Stanford's PTBTokenizer 3.4.1 with -preserveLines -lowerCase, as pycocoevalcap 1.2 calls it. The rules were
found by feeding it captions, words, abbreviations and characters and looking at what came out; none of its code was read.
It reads ahead into the next line, so that a caption which ends with an abbreviation ("Washington D.C.") is tokenised
differently before different captions. Here the next line is an argument, and is "A" unless it is given, so that a score does
not depend on the order of captions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

PUNCTUATION = frozenset(  # pycocoevalcap drops these; as it compares after lower-casing, "-lrb-" stays
    {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
)

_words = str.split
_ENDING = _words("""al ala
apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri ga
inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc ppte ppty pte ptes pty
ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo""")  # may end a sentence
_ENDING_NAMES = _words("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash")  # capitals only: "la. b" is no Louisiana
_INNER = _words("""adj adm adv
alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov
govs hon insp invt jos lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs pvt rep reps rev sen sens
sfc sgt spc st ste supt supts treas vs wm""")
_BEFORE_NUMBERS = _words("art ca fig figs no nos op pp prop")
_STARTERS = _words("""A About
According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once
One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You""")
_APART = frozenset({"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"})  # two tokens, the first of three letters
_SPELT = {
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "€": "$", "£": "#", "¢": "cents", "…": "...", "–": "--",
    "—": "--", "“": "``", "”": "''", "«": "``", "»": "''", "‘": "`", "’": "'", "&amp;": "&", "&lt;": "<", "&gt;": ">",
    "&quot;": "''", "&apos;": "'",
}  # fmt: skip
_CONTRACTED = frozenset({"n't", "'s", "'m", "'d", "'ll", "'re", "'ve"})
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})

_MARKS = "\u0300-\u036f\u00ad\u0900-\u0903\u093a-\u093c\u093e-\u094f"  # what combines with the letter before it; no letters
_NO_DIGIT = r"(?![\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u207e\u2080-\u208e\u2150-\u215f])"  # H₂O is three tokens
_LETTER = rf"(?:{_NO_DIGIT}[^\W\d_][{_MARKS}]*)"
_RUN = rf"(?:{_NO_DIGIT}[^\W_][{_MARKS}]*)+"  # letters and digits
_END = r"(?![^\W_])"
_APOSTROPHE = "['’]"
_RULES = [  # the longest match wins, the first of equals; a group is the token, the rest of the match is only looked at
    re.compile(rule)
    for rule in (
        r"[ \t\r\n\u00a0\u2000-\u200b\u3000]+",
        # words
        rf"{_LETTER}{_RUN}|{_LETTER}|\d+{_LETTER}(?:{_RUN})?",
        rf"{_RUN}(?:[-_/]{_RUN})+|[A-Za-z]+(?:[!?][A-Za-z]+)+",
        rf"{_LETTER}(?:{_RUN})?(?:\.{_LETTER}(?:{_RUN})?)+",
        rf"({_LETTER}+)(?i:n{_APOSTROPHE}t){_END}",
        rf"({_RUN}){_APOSTROPHE}(?i:s|m|d|ll|re|ve){_END}",
        rf"(?i:n{_APOSTROPHE}t){_END}",
        rf"'(?i:s|m|d|ll|re|ve){_END}|’(?i:s|m|d|ll|re|ve|n)",
        rf"(?i:'n'|'n{_END})|'(?i:em|till?|cause){_END}|'[2-9]0s{_END}|'\d\d(?![\w/:%])|'[tT](?=is|was)",
        rf"[jJyYdDlL]{_APOSTROPHE}(?={_LETTER})",
        rf"(?i:ol|somethin|dunkin)'{_END}|(?i:s'mores?){_END}|(?i:cont'd\.)|(?i:c{_APOSTROPHE}est){_END}",
        rf"[A-HJ-XZdlno]{_APOSTROPHE}{_LETTER}{{2,}}",
        rf"[A-Za-z][a-z]*[aeiouyA-Z]{_APOSTROPHE}[aeiouA-Z][a-z]*|[a-z]*(?i:qu){_APOSTROPHE}[aeiou][a-z]*",
        # abbreviations
        rf"(?:[A-Za-z]\.)+(?:-{_RUN})*{_END}|(?i:ph\.d\.)",
        rf"(?:{_RUN}-)+[A-Za-z]\.(?:[A-Za-z]\.)+{_END}",
        rf"(?i:{'|'.join(_ENDING + _INNER)})\.|(?:{'|'.join(f'{name}|{name.upper()}' for name in _ENDING_NAMES)})\.",
        rf"({_LETTER}+\.)[,;:]",
        rf"((?i:{'|'.join(_BEFORE_NUMBERS)})\.)\s*\d",
        # numbers and money
        r"[-+]?(?:\d*(?:[.:,]\d+)+|\d+)",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"(?:\(\d{2,3}\)[ \u00a0]?|\d{3} )\d{3,4}[- ]\d{4}",
        r"(?:US|[A-Z])\$",
        # names that machines give
        r"</?[A-Za-z!][^<>\n]*>",
        r"""https?://[^\s"<>|()]*[^\s"<>|().!?,;]|www\.[^\s"<>|()]*[^\s"<>|().!?,;]""",
        r"[A-Za-z0-9][\w.+-]*@[A-Za-z0-9_.-]*[A-Za-z0-9]|@[A-Za-z_]\w*|#[A-Za-z]+|[CcFf]#|[Cc]\+\+|[A-Z]+&[A-Z]+",
        r"[:;=]-?[()DPp](?!\w)|\^_\^",
        # marks
        r"&(?:amp|lt|gt|quot|apos);",
        r"-{2,}|\.{3,}|\.(?: \.){2,}|[!?]+|_+|\*+|``|''",
        r".",
    )
]
_ENDS_SENTENCE = frozenset(word + "." for word in _ENDING) | frozenset(word.lower() + "." for word in _ENDING_NAMES)
_ACRONYM = re.compile(r"(?:[a-z]\.){2,}|ph\.d\.")
_STARTER_FOLLOWS = re.compile(rf"\s+(?:{'|'.join(f'{name}|{name.upper()}' for name in _STARTERS)}|M[rs]\.)(?=\s|$)")
_CAPITAL_FOLLOWS = re.compile(r"\s+[A-Z]")
_NO_ABBREVIATION = "|".join([*_ENDING, *_INNER, *map(str.lower, _ENDING_NAMES), *_BEFORE_NUMBERS])
_PLAIN = re.compile(r" +|[A-Za-z]+(?= )")  # no rule finds more there
_WORD = re.compile(r"([A-Za-z]+)([.,;:!?]?)")
_SETTLED = re.compile(  # a chunk between spaces whose tokens do not depend on its neighbours
    rf"[A-Za-z]+(?:-[A-Za-z]+)*[,;:!?]?|[a-z]+'[a-z]+|[A-Za-z]+-[A-Za-z]+\.|[.,;:?]|(?!(?i:{_NO_ABBREVIATION})\.)[A-Za-z]{{2,}}\."
)


def ptb_tokens(text: str, following: str = "A") -> list[str]:
    """Return the lower-cased tokens of one caption, punctuation included; `following` is the next line."""
    quick = _quickly(text, _settled)
    return quick if quick is not None else _by_rules(text.strip(), following)


def scored_tokens(text: str, following: str = "A") -> list[str]:
    """Return the tokens that are scored: no punctuation, and "23 3/4" as two, for pycocoevalcap splits at any space."""
    quick = _quickly(text, _settled_scored)
    return quick if quick is not None else _scored(_by_rules(text.strip(), following))


def forget_tokens() -> None:
    """Empty the caches of words, as a new process would find them."""
    _settled.cache_clear()
    _settled_scored.cache_clear()


def _quickly(text: str, settled: Callable[[str], list[str]]) -> list[str] | None:
    """Return the tokens of a caption all of whose chunks are settled, as nearly all are; None for any other."""
    if ". ." in text:  # ". . ." is one token
        return None
    try:
        return [token for chunk in text.split() for token in settled(chunk)]
    except _UnsettledError:
        return None


class _UnsettledError(Exception):
    """The neighbours of a chunk may change its tokens."""


@lru_cache(maxsize=100_000)
def _settled(chunk: str) -> list[str]:
    """Return the tokens of a chunk where no neighbour can change them; raises _UnsettledError where one may."""
    if not _SETTLED.fullmatch(chunk):
        raise _UnsettledError
    word = _WORD.fullmatch(chunk)  # most are: the rules would find the same, at ten times the time
    return [*_told(word[1], "", 0), *word[2]] if word else _by_rules(chunk, "")


@lru_cache(maxsize=100_000)
def _settled_scored(chunk: str) -> list[str]:
    return _scored(_settled(chunk))


def _scored(tokens: list[str]) -> list[str]:
    return [part for token in tokens if token not in PUNCTUATION for part in token.split()]


def _by_rules(text: str, following: str) -> list[str]:
    tokens: list[str] = []
    whole = f"{text}\n{following}"
    at = 0
    while at < len(text):
        end, token = _next(whole, at)
        if token:
            tokens += _told(token, whole, end)
        at = end
    return tokens


def _next(text: str, at: int) -> tuple[int, str]:
    """Return where the token at `at` ends, and the token; white space is an empty one."""
    plain = _PLAIN.match(text, at)
    if plain is not None:
        return plain.end(), plain[0].strip()
    best, end = -1, at + 1
    for rule in _RULES:
        found = rule.match(text, at)
        if found is not None and found.end() > best:
            best, end = found.end(), found.end(1) if rule.groups else found.end()
    return end, text[at:end].strip()


def _told(token: str, text: str, end: int) -> list[str]:
    """Return what is written for a token: one token, two, or none."""
    lowered = token.lower().replace("\u00ad", "")
    if lowered in _APART:
        return [lowered[:3], lowered[3:]]
    if len(token) == 1 and not token.isalnum():
        return _mark(token, text[end : end + 2])
    if token[0] == "." and len(token) > 2 and not token[1].isdigit():
        return ["..."]
    if token[0] == "-" and set(token) == {"-"}:
        return ["--"]
    if len(token) == 2 and token[1] == "." and _STARTER_FOLLOWS.match(text, end):
        return [lowered[0], "."]
    if lowered in _ENDS_SENTENCE and _CAPITAL_FOLLOWS.match(text, end):
        return [lowered, "."]
    if _ACRONYM.fullmatch(lowered) and _STARTER_FOLLOWS.match(text, end):
        return [lowered, "."]
    if len(token) > 1 and token[0] == "<":
        return [lowered.replace(" ", "\u00a0")]
    if lowered.replace("’", "'") in _CONTRACTED:
        return [lowered.replace("’", "'")]
    return [_SPELT.get(lowered, lowered.translate(_BRACKETS).replace(" ", "\u00a0"))]


def _mark(mark: str, following: str) -> list[str]:
    """Return what is written for a single character that is neither letter nor digit."""
    if mark == '"':
        return ["``" if re.match(r"[A-Za-z0-9$]", following) else "''"]
    if mark == "'":
        return ["`" if re.match(r"[A-Za-z]\S", following) else "'"]
    if ord(mark) > 0xFFFF or unicodedata.category(mark) in ("Cc", "Cf", "Cn", "Co", "Cs"):
        return []  # the reference drops what it has no rule for, emoji among it
    return [_SPELT.get(mark, mark.translate(_BRACKETS))]
