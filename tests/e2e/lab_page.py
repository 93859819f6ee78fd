"""The lab in a browser, for its tests and its benchmark: when it answers, and a slider that is moved."""

import socket
import time
from urllib.parse import urlsplit

# Moves the first slider by a step: whether another figure was drawn within a minute, and after how many ms.
MOVE = """async () => {
  const box = document.querySelector('.trademl-figure'), before = box.dataset.drawn, began = performance.now();
  const handle = document.querySelector('.widget-slider .noUi-handle');
  handle.focus();
  handle.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
  while (box.dataset.drawn === before && performance.now() - began < 60000) await new Promise((done) => setTimeout(done, 2));
  return [box.dataset.drawn !== before, performance.now() - began];
}"""


def until_it_listens(address: str) -> str:
    """The address, once a connection is taken: Jupyter says where it is before it listens there."""
    place = urlsplit(address)
    for _ in range(600):
        try:
            socket.create_connection((place.hostname, place.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return address
    raise TimeoutError(f"{address}: nothing listens")
