"""What a look at data found: the types of a report, and the report in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from corpus.example import Example

Level = Literal["error", "warning", "note"]
_SHOWN = 5  # cases of a finding that are told in words


@dataclass(frozen=True, slots=True)
class Case:
    """One place where something was found: the record, what is there, and the pictures that show it."""

    where: str
    text: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about data. An error spoils training or scores; a note spoils nothing."""

    level: Level
    title: str
    advice: str
    cases: tuple[Case, ...] = ()
    count: int = 0  # of cases, which are not all kept

    def __post_init__(self) -> None:
        if not self.count:
            object.__setattr__(self, "count", len(self.cases))


@dataclass(slots=True)
class Report:
    """All that was found, with what the data is made of."""

    data: str
    images: dict[str, int] = field(default_factory=dict)  # by split
    captions: dict[str, int] = field(default_factory=dict)  # by language, "" where it is not told
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the report with every case, pictures left out."""
        return {
            "data": self.data,
            "images": self.images,
            "captions": self.captions,
            "errors": self.errors,
            "findings": [
                {
                    "level": finding.level,
                    "title": finding.title,
                    "count": finding.count,
                    "advice": finding.advice,
                    "cases": [{"where": case.where, "text": case.text} for case in finding.cases],
                }
                for finding in self.findings
            ],
        }

    def summary(self) -> str:
        """Return what the data is made of, and how long the look took."""
        pictures = sum(self.images.values())
        by_split = ", ".join(f"{split} {count:,}" for split, count in self.images.items()) or "none"
        told = (f"{language or 'language not told'} {count:,}" for language, count in self.captions.items())
        by_language = ", ".join(told) or "none"
        return (
            f"{pictures:,} pictures ({by_split}), {sum(self.captions.values()):,} captions ({by_language}); "
            f"looked at in {self.seconds:.1f} s, {1000 * self.seconds / max(1, pictures):.2f} s a thousand pictures"
        )

    def in_words(self) -> str:
        """Return the report for a terminal."""
        lines = [f"{self.data}: {self.summary()}", ""]
        for finding in self.findings:
            lines.append(f"{finding.level.upper()}: {finding.title}: {finding.count:,}. {finding.advice}")
            lines += [f"    {': '.join(filter(None, (case.where, case.text)))}" for case in finding.cases[:_SHOWN]]
            if finding.count > _SHOWN:
                lines.append(f"    and {finding.count - _SHOWN:,} more")
        lines.append("no errors" if not self.errors else f"{self.errors} {'kind' if self.errors == 1 else 'kinds'} of errors")
        return "\n".join(lines)


def finding(level: Level, title: str, advice: str, cases: Sequence[Case]) -> list[Finding]:
    """Return the finding in a list, or nothing where there are no cases."""
    return [Finding(level, title, advice, tuple(cases))] if cases else []
