"""What type checkers see: README's code and the package's public face are right, mistakes found.

With the extra `types`; skipped without it.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACE = ["__init__.py", "api.py", "options.py", "settings.py", "methods/table.py"]
CHECKER = shutil.which("basedpyright") or shutil.which("pyright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHECKER is None, reason='pip install -e ".[types]" for pyright'),
]


def found(folder: Path, *files: Path) -> list[str]:
    """What pyright, in its standard mode, finds in files."""
    about = {
        "include": [str(file) for file in files],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(about))
    command = [CHECKER, "--outputjson", "-p", str(folder)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert said["summary"]["filesAnalyzed"] >= len(files)
    return [finding["message"] for finding in said["generalDiagnostics"]]


def test_the_public_face_has_no_type_error(tmp_path):
    assert found(tmp_path, *(ROOT / "ptinv" / file for file in FACE)) == []


def test_readme_s_python_has_no_type_error_and_a_mistake_is_found(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", readme, re.S))
    (tmp_path / "readme.py").write_text(code)
    assert found(tmp_path, tmp_path / "readme.py") == []
    (tmp_path / "wrong.py").write_text(
        "import ptinv\n"
        'ptinv.edit(ptinv.load(), "a.png", "a cat", guidence=3.0)\n'
        'ptinv.edit(ptinv.load(), "a.png", "a cat", eta="much")\n'
        "ptinv.edti\n"
    )
    misspelt, mistyped, unknown = found(tmp_path, tmp_path / "wrong.py")
    assert "guidence" in misspelt and "eta" in mistyped and "edti" in unknown
