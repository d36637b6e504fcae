"""Print what pyproject.toml asks for, one requirement a line: `wanted.py PYPROJECT EXTRA...`. Used by the Dockerfile,
which installs the packages in a layer of their own, before the code that needs them.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))["project"]
for line in project["dependencies"] + [
    one for extra in sys.argv[2:] for one in project["optional-dependencies"][extra]
]:
    print(line)
