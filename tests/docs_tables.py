"""Tables of docs/ that are derived from declarations: `python -m tests.docs_tables` writes them (`make docs`)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from model import GenerationOptions, markdown_table
from service.errors import ERRORS
from service.http.dialects.native.schemas import MapOptions
from service.settings import settings_table
from training import TrainConfig, presets_table

PACKAGES = ("train.py", "model", "corpus", "training", "evaluation", "benchmarks", "report", "service", "examples")
DOCS = Path(__file__).parent.parent / "docs"


def tables() -> dict[tuple[str, str], str]:
    """Return each table by page and name."""
    return {
        ("service.md", "options"): markdown_table(GenerationOptions),
        ("service.md", "map options"): _map_options(),
        ("service.md", "errors"): _errors(),
        ("service.md", "settings"): settings_table(),
        ("training.md", "train"): markdown_table(TrainConfig, flags=True),
        ("training.md", "presets"): presets_table(),
        ("architecture.md", "files"): _files(),
    }


def with_table(text: str, name: str, table: str) -> str:
    """Return a page's text with the table between its two markers."""
    pattern = rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)"
    assert re.search(pattern, text, re.DOTALL), f"the page has no markers for the table {name!r}"
    return re.sub(pattern, lambda match: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)


def main() -> None:
    """Write all tables."""
    for (page, name), table in tables().items():
        path = DOCS / page
        path.write_text(with_table(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def _map_options() -> str:
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, field in MapOptions.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default or "the checkpoint's"
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _errors() -> str:
    rows = ["| status | code | when |", "|---|---|---|"]
    rows += [f"| {kind.status} | `{code}` | {kind.explanation} |" for code, kind in sorted(ERRORS.items(), key=_status)]
    return "\n".join(rows)


def _files() -> str:
    """Return every source file with the first sentence of its docstring, by folder."""
    root, lines = DOCS.parent, list[str]()
    for package in PACKAGES:
        paths = [root / package] if package.endswith(".py") else sorted((root / package).rglob("*.py"), key=_folder_first)
        folder = None
        for path in paths:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            first = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
            sentence = re.split(r"(?<!al)(?<=\.)\s", first)[0].rstrip(".")
            if path.parent != folder and path.parent != root:
                folder = path.parent
                title = sentence if path.name == "__init__.py" else ""
                lines.append(f"\n**{folder.relative_to(root)}/** {title}\n")
            if path.name != "__init__.py":
                lines.append(f"- `{path.name}`: {sentence}")
    return "\n".join(lines).strip()


def _folder_first(path: Path) -> tuple[Path, bool, str]:
    return path.parent, path.name != "__init__.py", path.name


def _status(entry: tuple[str, object]) -> int:
    return ERRORS[entry[0]].status


if __name__ == "__main__":
    main()
