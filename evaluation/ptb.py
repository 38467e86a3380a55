"""The Penn Treebank tokens that published caption scores are computed on, without Java.

The reference is Stanford's PTBTokenizer 3.4.1 with -preserveLines -lowerCase, as pycocoevalcap 1.2 calls it. The rules come
from its output for captions, words, abbreviations and characters; none of its code was read. It reads ahead into the next
line, so a caption that ends with an abbreviation ("Washington D.C.") is tokenized differently before different captions. Here
the next line is an argument with the default "A", so a score does not depend on the order of captions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

PUNCTUATION = frozenset(  # pycocoevalcap drops these; it compares after lower-casing, so "-lrb-" stays
    {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
)

_words = str.split
_ENDING = _words("""al ala
apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri ga
inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc ppte ppty pte ptes pty
ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo""")  # may end a sentence
_NAME_ENDING = _words("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash")  # capitals only: "la. b" is not Louisiana
_IN_SENTENCE = _words("""adj adm adv
alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov
govs hon insp invt jos lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs pvt rep reps rev sen sens
sfc sgt spc st ste supt supts treas vs wm""")
_BEFORE_NUMBERS = _words("art ca fig figs no nos op pp prop")
_STARTERS = _words("""A About
According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once
One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You""")
_TWO_TOKENS = frozenset({"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"})  # two tokens, the first of three letters
_REPLACEMENTS = {
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "€": "$", "£": "#", "¢": "cents", "…": "...", "–": "--",
    "—": "--", "“": "``", "”": "''", "«": "``", "»": "''", "‘": "`", "’": "'", "&amp;": "&", "&lt;": "<", "&gt;": ">",
    "&quot;": "''", "&apos;": "'",
}  # fmt: skip
_CONTRACTED = frozenset({"n't", "'s", "'m", "'d", "'ll", "'re", "'ve"})
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})

_MARKS = "\u0300-\u036f\u00ad\u0900-\u0903\u093a-\u093c\u093e-\u094f"  # they combine with the letter before
_NO_DIGIT = r"(?![\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u207e\u2080-\u208e\u2150-\u215f])"  # H₂O is three tokens
_LETTER = rf"(?:{_NO_DIGIT}[^\W\d_][{_MARKS}]*)"
_RUN = rf"(?:{_NO_DIGIT}[^\W_][{_MARKS}]*)+"  # letters and digits
_END = r"(?![^\W_])"
_APOSTROPHE = "['’]"
_RULES = [  # longest match wins, first of equals; if there is a group, it is the token
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
        rf"(?i:{'|'.join(_ENDING + _IN_SENTENCE)})\.|(?:{'|'.join(f'{name}|{name.upper()}' for name in _NAME_ENDING)})\.",
        rf"({_LETTER}+\.)[,;:]",
        rf"((?i:{'|'.join(_BEFORE_NUMBERS)})\.)\s*\d",
        # numbers and money
        r"[-+]?(?:\d*(?:[.:,]\d+)+|\d+)",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"(?:\(\d{2,3}\)[ \u00a0]?|\d{3} )\d{3,4}[- ]\d{4}",
        r"(?:US|[A-Z])\$",
        # tags, addresses and handles
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
_ENDS_SENTENCE = frozenset(word + "." for word in _ENDING) | frozenset(word.lower() + "." for word in _NAME_ENDING)
_ACRONYM = re.compile(r"(?:[a-z]\.){2,}|ph\.d\.")
_STARTER_FOLLOWS = re.compile(rf"\s+(?:{'|'.join(f'{name}|{name.upper()}' for name in _STARTERS)}|M[rs]\.)(?=\s|$)")
_CAPITAL_FOLLOWS = re.compile(r"\s+[A-Z]")
_NO_ABBREVIATION = "|".join([*_ENDING, *_IN_SENTENCE, *map(str.lower, _NAME_ENDING), *_BEFORE_NUMBERS])
_PLAIN = re.compile(r" +|[A-Za-z]+(?= )")  # no rule matches more there
_WORD = re.compile(r"([A-Za-z]+)([.,;:!?]?)")
_INDEPENDENT = re.compile(  # a chunk between spaces whose tokens do not depend on its neighbors
    rf"[A-Za-z]+(?:-[A-Za-z]+)*[,;:!?]?|[a-z]+'[a-z]+|[A-Za-z]+-[A-Za-z]+\.|[.,;:?]|(?!(?i:{_NO_ABBREVIATION})\.)[A-Za-z]{{2,}}\."
)


def ptb_tokens(text: str, following: str = "A") -> list[str]:
    """Return the lower-cased tokens of one caption, punctuation included; `following` is the next line."""
    tokens = _join_chunks(text, _chunk_tokens)
    return tokens if tokens is not None else _by_rules(text.strip(), following)


def scored_tokens(text: str, following: str = "A") -> list[str]:
    """Return the tokens that are scored: no punctuation, and "23 3/4" as two because pycocoevalcap splits at any space."""
    tokens = _join_chunks(text, _scored_chunk_tokens)
    return tokens if tokens is not None else _drop_punctuation(_by_rules(text.strip(), following))


def clear_token_cache() -> None:
    """Empty the caches of chunks, as in a new process."""
    _chunk_tokens.cache_clear()
    _scored_chunk_tokens.cache_clear()


def _join_chunks(text: str, chunk_tokens: Callable[[str], list[str]]) -> list[str] | None:
    """Return the tokens of a caption if no chunk depends on its neighbors, as in nearly all captions; else None."""
    if ". ." in text:  # ". . ." is one token
        return None
    try:
        return [token for chunk in text.split() for token in chunk_tokens(chunk)]
    except _DependentChunkError:
        return None


class _DependentChunkError(Exception):
    """The neighbors of a chunk may change its tokens."""


@lru_cache(maxsize=100_000)
def _chunk_tokens(chunk: str) -> list[str]:
    """Return the tokens of a chunk that no neighbor can change. Raises _DependentChunkError for any other chunk."""
    if not _INDEPENDENT.fullmatch(chunk):
        raise _DependentChunkError
    word = _WORD.fullmatch(chunk)  # most chunks are words: the rules give the same tokens in ten times the time
    return [*_normalize(word[1], "", 0), *word[2]] if word else _by_rules(chunk, "")


@lru_cache(maxsize=100_000)
def _scored_chunk_tokens(chunk: str) -> list[str]:
    return _drop_punctuation(_chunk_tokens(chunk))


def _drop_punctuation(tokens: list[str]) -> list[str]:
    return [part for token in tokens if token not in PUNCTUATION for part in token.split()]


def _by_rules(text: str, following: str) -> list[str]:
    tokens: list[str] = []
    lines = f"{text}\n{following}"
    start = 0
    while start < len(text):
        end, token = _next_token(lines, start)
        if token:
            tokens += _normalize(token, lines, end)
        start = end
    return tokens


def _next_token(text: str, start: int) -> tuple[int, str]:
    """Return the end of the token that starts at `start`, and the token; white space is an empty token."""
    plain = _PLAIN.match(text, start)
    if plain is not None:
        return plain.end(), plain[0].strip()
    longest, end = -1, start + 1
    for rule in _RULES:
        match = rule.match(text, start)
        if match is not None and match.end() > longest:
            longest, end = match.end(), match.end(1) if rule.groups else match.end()
    return end, text[start:end].strip()


def _normalize(token: str, text: str, end: int) -> list[str]:
    """Return the output of a matched token: one token, two, or none."""
    lowered = token.lower().replace("\u00ad", "")
    if lowered in _TWO_TOKENS:
        return [lowered[:3], lowered[3:]]
    if len(token) == 1 and not token.isalnum():
        return _normalize_mark(token, text[end : end + 2])
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
    return [_REPLACEMENTS.get(lowered, lowered.translate(_BRACKETS).replace(" ", "\u00a0"))]


def _normalize_mark(mark: str, following: str) -> list[str]:
    """Return the output of a single character that is neither a letter nor a digit."""
    if mark == '"':
        return ["``" if re.match(r"[A-Za-z0-9$]", following) else "''"]
    if mark == "'":
        return ["`" if re.match(r"[A-Za-z]\S", following) else "'"]
    if ord(mark) > 0xFFFF or unicodedata.category(mark) in ("Cc", "Cf", "Cn", "Co", "Cs"):
        return []  # the reference drops characters without a rule, such as emoji
    return [_REPLACEMENTS.get(mark, mark.translate(_BRACKETS))]
