"""Runs the tour's notebooks, and writes each with its outputs beside its text.

    python tools/tour/run.py [1_up_and_down.py …]

The text, NAME.py, is what is edited; NAME.ipynb is made of it, to be read on the web. Needs the
extra `tour`.
"""

import sys
from pathlib import Path

try:
    import jupytext
    import nbformat
    from nbclient import NotebookClient
except ImportError as error:
    sys.exit(f'run.py: {error.name} is missing: pip install -e ".[tour]"')

FOLDER = Path(__file__).resolve().parent


def executed(text: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs, and nothing in it that another run has otherwise but numbers."""
    notebook = jupytext.read(text)
    where = {"metadata": {"path": str(text.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata.pop("execution", None)  # when it ran
        if "outputs" in cell:  # libraries' warnings name this machine's folders
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def main(names: list[str]) -> None:
    texts = {path.name: path for path in sorted(FOLDER.glob("[0-9]_*.py"))}
    if unknown := set(names) - texts.keys():
        wrong = f"there is no {', '.join(sorted(unknown))}, only {', '.join(texts)}"
        print(f"run.py: {wrong}", file=sys.stderr)
        sys.exit(2)
    for text in [texts[name] for name in names] or texts.values():
        nbformat.write(executed(text), text.with_suffix(".ipynb"))
        print(text.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
