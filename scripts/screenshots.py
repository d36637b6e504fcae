"""Takes pictures of the panel's pages, in both themes and at two widths, to look at: for people, tests and the README.

    python scripts/screenshots.py http://127.0.0.1:7878 --password-file FILE --out shots /  /runs /train
    python scripts/screenshots.py http://127.0.0.1:7878 --widths 1440 --themes dark /design

Needs playwright (extra `dev`) and a Chromium: the one named in PILOT_CHROMIUM, else the system's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin

WIDTHS = (1440, 390)
THEMES = ("light", "dark")
# No sandbox: containers have no user namespaces; the browser opens the panel alone.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """The browser to use: PILOT_CHROMIUM, else chromium or google-chrome of the system; None where there is none."""
    named = os.environ.get("PILOT_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def name_of(page: str, theme: str, width: int) -> str:
    """runs_dark_390.png for /runs; the first page is `dashboard`."""
    words = page.partition("?")[0].strip("/").replace("/", "-") or "dashboard"
    return f"{words}_{theme}_{width}.png"


def take(base: str, pages: list[str], out: Path, password: str | None, widths: list[int], themes: list[str]) -> None:
    """Log in where a password is given, and write one picture a page, theme and width into `out`."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        for width in widths:
            for theme in themes:
                scheme = "dark" if theme == "dark" else "light"
                size = {"width": width, "height": 844 if width < 800 else 900}
                context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)
                page = context.new_page()
                if password is not None:
                    page.goto(base)
                    page.fill("input[type=password]", password)
                    page.press("input[type=password]", "Enter")
                    page.wait_for_load_state("networkidle")
                for path in pages:
                    answer = page.goto(urljoin(base, path))
                    if answer is None or not answer.ok:
                        raise SystemExit(f"{path}: {answer.status if answer else 'no answer'}; nothing to look at")
                    page.wait_for_timeout(700)  # charts and the first live answers
                    target = out / name_of(path, theme, width)
                    page.screenshot(path=target, full_page=True)
                    print(target)
                context.close()
        browser.close()


def main() -> int:
    """The command line."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="address of a running panel")
    parser.add_argument("pages", nargs="+", help="paths, for example / /runs /train?demo=1")
    parser.add_argument("--out", type=Path, default=Path("build/screenshots"))
    parser.add_argument("--password-file", type=Path, help="file with the panel's password")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), metavar="PX")
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=list(THEMES))
    given = parser.parse_args()
    if chromium() is None:
        print("error in scripts/screenshots.py\n  given    no Chromium on this machine\n"
              "  allowed  chromium or google-chrome\n  remedy   Install one, or name it in PILOT_CHROMIUM.",
              file=sys.stderr)  # fmt: skip
        return 2
    password = given.password_file.read_text(encoding="utf-8").strip() if given.password_file else None
    take(given.base, given.pages, given.out, password, given.widths, given.themes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
