"""Navigation and reference pages of the documentation, made by mkdocs while it builds (`hooks` in `mkdocs.yml`).

The sections are the folders of `docs/`; a new page in one of them, or a new module in `src/`, appears without an entry
anywhere else.
"""

# ruff: noqa: INP001 mkdocs loads this file by its path; it is in no package

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parents[1] / "src"

# Folder -> title, in reading order. A folder without pages is left out.
SECTIONS = {
    "tutorial": "Tutorial",
    "how-to": "How-to",
    "studies": "Studies",
    "explanation": "Explanation",
    "reference": "Reference",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add one page for each public module, then list all pages by section."""
    for path in sorted((SOURCE / "neuronscope").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        if parts[-1] == "__init__":
            uri, content = ("reference", *parts[:-1], "index.md"), package_page(".".join(parts[:-1]), path)
        else:
            uri, content = ("reference", *parts[:-1], f"{parts[-1]}.md"), f"::: {'.'.join(parts)}\n"
        title = ".".join(part for part in parts if part != "__init__")
        files.append(File.generated(config, "/".join(uri), content=f"---\ntitle: {title}\n---\n\n{content}"))
    config.nav = navigation(sorted(page.src_uri for page in files.documentation_pages()))
    return files


def package_page(package: str, path: Path) -> str:
    """What a package defines itself, in full, and links to what it offers from its modules (described there once)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuronscope")
        for alias in node.names
    }
    own = [name for name in defined(tree) if not name.startswith("_")]
    page = f"::: {package}\n    options:\n      members: {own or 'false'}\n"
    if imported:
        links = "\n".join(f"- [`{name}`][{source}]" for name, source in sorted(imported.items()))
        page += f"\n## Offered here\n\n{links}\n"
    return page


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of the functions, classes and constants at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            places = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (place.id for place in places if isinstance(place, ast.Name))


def navigation(pages: list[str]) -> list[object]:
    """Single pages first, then the sections; the pages of a section by path, its `index.md` as its own page."""
    tree: list[object] = ["index.md"]
    tree.extend(
        {title: within}
        for folder, title in SECTIONS.items()
        if (within := [p for p in pages if p.startswith(f"{folder}/")])
    )
    tree.extend(page for page in pages if "/" not in page and page != "index.md")
    return tree
