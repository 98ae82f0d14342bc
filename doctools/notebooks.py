"""The notebooks of docs/notebooks: run them and keep what they show, or read one as a page of the site.

python -m doctools.notebooks    # runs all in place
"""

from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

__all__ = ["FOLDER", "execute", "page", "shown"]

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, folder: Path) -> NotebookNode:
    """The notebook with fresh outputs, and without what differs from run to run: counts, times, versions.

    Args:
        path: the notebook.
        folder: where it runs.
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place, coalesce_streams=True).execute()
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "execution_count" in output:
                output.execution_count = None
            if "image/png" in output.get("data", {}):
                output.data.pop("text/plain", None)  # it names the figure alone
        if cell.cell_type == "code":
            cell.execution_count = None
    return notebook


def shown(cell: NotebookNode) -> str:
    """The text that a cell of code printed or returned."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(text.rstrip("\n") for text in texts if text)


def page(path: Path) -> Iterator[str]:
    """The notebook as lines of Markdown."""
    for cell in nbformat.read(path, as_version=4).cells:
        yield ""
        if cell.cell_type == "markdown":
            yield from cell.source.splitlines()
            continue
        yield from ["```python", *cell.source.splitlines(), "```"]
        if text := shown(cell):
            yield from ["", "```text", *text.splitlines(), "```"]
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                yield from ["", f"![What the cell draws](data:image/png;base64,{''.join(png.split())})"]


def main() -> None:
    """Run all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(path, FOLDER), path)
        print(path.name)


if __name__ == "__main__":
    main()
