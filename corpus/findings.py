"""The result of a check: findings with their cases, and a report as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from corpus.example import Example

Level = Literal["error", "warning", "note"]
_MAX_CASES = 5  # cases of a finding in the text of a report


@dataclass(frozen=True, slots=True)
class Case:
    """One occurrence of a finding: the record, a description, and the images that show it."""

    origin: str
    text: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A property of the data that matters. An error harms training or scores; a note harms neither."""

    level: Level
    title: str
    advice: str
    cases: tuple[Case, ...] = ()
    count: int = 0  # of cases; `cases` may have fewer. 0 means the number of `cases`

    def __post_init__(self) -> None:
        if not self.count:
            object.__setattr__(self, "count", len(self.cases))


@dataclass(slots=True)
class Report:
    """All findings of a check, with the number of images and captions."""

    data: str
    images: dict[str, int] = field(default_factory=dict)  # by split
    captions: dict[str, int] = field(default_factory=dict)  # by language, "" if the data does not name it
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.level == "error" for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the report with every case, without the images."""
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
                    "cases": [{"where": case.origin, "text": case.text} for case in finding.cases],
                }
                for finding in self.findings
            ],
        }

    def summary(self) -> str:
        """Return the number of images by split and of captions by language, and the duration of the check."""
        num_images = sum(self.images.values())
        by_split = ", ".join(f"{split} {count:,}" for split, count in self.images.items()) or "none"
        counts = (f"{language or 'unknown language'} {count:,}" for language, count in self.captions.items())
        by_language = ", ".join(counts) or "none"
        return (
            f"{num_images:,} images ({by_split}), {sum(self.captions.values()):,} captions ({by_language}); "
            f"checked in {self.seconds:.1f} s, {1000 * self.seconds / max(1, num_images):.2f} s per thousand images"
        )

    def to_text(self) -> str:
        """Return the report as text for a terminal."""
        lines = [f"{self.data}: {self.summary()}", ""]
        for finding in self.findings:
            lines.append(f"{finding.level.upper()}: {finding.title}: {finding.count:,}. {finding.advice}")
            lines += [f"    {': '.join(filter(None, (case.origin, case.text)))}" for case in finding.cases[:_MAX_CASES]]
            if finding.count > _MAX_CASES:
                lines.append(f"    and {finding.count - _MAX_CASES:,} more")
        lines.append("no errors" if not self.errors else f"{self.errors} {'kind' if self.errors == 1 else 'kinds'} of errors")
        return "\n".join(lines)


def findings_of(level: Level, title: str, advice: str, cases: Sequence[Case]) -> list[Finding]:
    """Return a list with one finding, or an empty list if there are no cases."""
    return [Finding(level, title, advice, tuple(cases))] if cases else []
