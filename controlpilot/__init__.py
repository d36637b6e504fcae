"""ControlPilot, the panel: pages and a JSON API over the workspace. Trains, decodes, hashes and downloads nothing.

`create_app(settings)` in app.py is the only wiring; `controlpilot serve` runs it.
"""

from __future__ import annotations
