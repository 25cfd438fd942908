"""Takes the README's pictures of a real training: `.venv/bin/python scripts/take_pictures.py` writes `docs/images/`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
NEURAL = Path(sys.executable).with_name("neural")
VIEWPORT = ViewportSize(width=1280, height=640)
# The epoch to wait for; training goes on, for the picture is of a live session.
EPOCH = 8


def main() -> None:
    """Train the example, and take the Gradients view in light and dark once some epochs are done."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    command = [
        str(NEURAL),
        "debug",
        str(ROOT / "examples" / "mnist.neural"),
        "--port",
        "0",
        "--epochs",
        "40",
        "--every",
        "5",
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as training,
        sync_playwright() as playwright,
    ):
        address = ""
        for line in training.stdout or ():
            print(line, end="")
            address = address or "".join(re.findall(r"http://localhost:\d+/", line))
            if line.startswith(f"epoch {EPOCH}/"):
                break
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for dark, name in (("false", "gradients.png"), ("true", "gradients-dark.png")):
            page = browser.new_page(viewport=VIEWPORT)
            page.goto(f"{address}?darkMode={dark}#neuraldbg&p.neuraldbg.view=gradients")
            page.frame_locator('iframe[src*="name=neuraldbg"]').locator("canvas").first.wait_for()
            # The charts below come one by one.
            page.wait_for_load_state("networkidle")
            page.screenshot(path=ROOT / "docs" / "images" / name)
            page.close()
        browser.close()
        training.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
