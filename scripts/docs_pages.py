"""Navigation and reference pages of the documentation, made by mkdocs while it builds (`hooks` in `mkdocs.yml`).

The sections are the folders of `docs/`; a new page in one of them, or a new module in `src/`, appears without an entry
anywhere else.
"""

from __future__ import annotations

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
        package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if package else parts)
        uri = "/".join(("reference", *parts[:-1], "index.md" if package else f"{parts[-1]}.md"))
        files.append(File.generated(config, uri, content=f"---\ntitle: {module}\n---\n\n::: {module}\n"))
    config.nav = navigation(sorted(page.src_uri for page in files.documentation_pages()))
    return files


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
