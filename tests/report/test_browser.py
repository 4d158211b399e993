"""The page in a real browser: nothing on its console, no request, and no sideways scrolling of the page."""

import html
import re
import shutil
import subprocess

import pytest

from ispf_jax.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")]
ASK = """<script>
for (const d of document.querySelectorAll("details")) d.open = true;
const page = document.documentElement;
const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll") &&
  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
parent.document.documentElement.dataset.found = JSON.stringify([innerWidth, page.scrollWidth, wide.slice(0, 5),
  performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"))]);
</script>"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_in_a_browser(tmp_path, put_audit, put_run, put_results, make_row, width):
    put_audit(class_names=["a class with a long name", *"123456789"], curves=[], embedding=[])
    put_results([make_row(name) for name in ("original", "masked_head", "retrain", "gkt", "ispf")])
    put_run("gkt")
    write_report(tmp_path, {"made": {"command": "python launch.py --config=" + 40 * "long"}})
    page = tmp_path / "asking.html"  # a window is never as narrow as a frame can be
    inner = html.escape((tmp_path / "report" / "index.html").read_text() + ASK)
    page.write_text(f'<iframe style="border: 0" width="{width}" height="900" srcdoc="{inner}"></iframe>')
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    options += ["--window-size=1400,1000", f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    ran = subprocess.run([str(BROWSER), *options], capture_output=True, text=True, timeout=120)
    found = re.search(r'data-found="\[(\d+),(\d+),(\[.*?\]),(\[.*?\])\]"', ran.stdout.replace("&quot;", "'"))
    assert found, ran.stderr[-2000:]
    assert (int(found[1]), found[3], found[4]) == (width, "[]", "[]") and int(found[2]) <= width
    assert "CONSOLE" not in ran.stderr, ran.stderr[-2000:]
