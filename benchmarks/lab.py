"""Seconds from `trademl lab` to the label figure, and milliseconds from a slider's move to the new figure, in Chromium.

python benchmarks/lab.py [BARS] [NEWS]      default: an embedded market of 70,000 bars
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from lab_page import MOVE, until_it_listens

MOVES = 9
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def main(bars: str = "", news: str = "") -> None:
    """Print the table."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        print("no Chromium on this machine: sudo apt-get install chromium")
        return
    from playwright.sync_api import sync_playwright

    settings = {"TRADEML_MARKET_BARS": bars, "TRADEML_MARKET_NEWS": news} if bars else {"TRADEML_SYNTHETIC_BARS": "70000"}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=program, args=FLAGS).new_page(viewport={"width": 1440, "height": 1200})
        env = os.environ | settings | {"JUPYTER_CONFIG_DIR": f"{home}/jupyter"}
        command = [str(Path(sys.executable).parent / "trademl"), "lab", "--port", "0", "--no-browser", "--allow-root"]
        began = time.perf_counter()
        server = subprocess.Popen(command, cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            address = next(found.group(0) for line in server.stderr if (found := re.search(r"http://localhost:\d+/lab\S*token=\S+", line)))
            until_it_listens(address)
            print(f"server answers             {time.perf_counter() - began:6.1f} s")
            tab.goto(address)
            tab.wait_for_selector(".trademl-start", timeout=300_000)
            print(f"start page, run            {time.perf_counter() - began:6.1f} s")
            tab.click("a[href*='labels.ipynb']")
            tab.wait_for_selector(".trademl-figure .main-svg", timeout=300_000)
            print(f"label figure               {time.perf_counter() - began:6.1f} s")
            tab.wait_for_timeout(3_000)
            moves = []
            for _ in range(MOVES):
                is_new, milliseconds = tab.evaluate(MOVE)
                if not is_new:
                    raise SystemExit(f"no new figure after {milliseconds:.0f} ms")
                moves.append(milliseconds)
                tab.wait_for_timeout(1_500)
            print(f"slider to figure, median   {statistics.median(moves):6.0f} ms (of {MOVES}; most {max(moves):.0f})")
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
