"""The demo in a process of its own: on the bundled models, with tables, slow and failing texts.

    with SpaceServer(folder) as server:
        Client(server.url)

A text that begins with "wait N" takes N seconds more, "crash" raises what nobody expects.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from selmem.space.examples import read_examples
from selmem.space.models import ModelChoice, ModelStore, bundled_choice
from selmem.space.published import Published
from selmem.space.service import Service

ROOT = Path(__file__).parents[1]
APP = ROOT / "spaces" / "reconstruction"
SECRET = "/srv/secret-folder"
UNLOADABLE = "nobody/unreachable-probe"
START_S = 180  # on a busy machine


class SpaceServer:
    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = folder / "server.log"
        self._settings = folder / "settings.json"
        self._settings.write_text(
            json.dumps(
                {
                    "port": self.port,
                    "tables": str(folder / "tables"),
                    "examples": str(folder / "examples.json"),
                }
            )
        )

    def __enter__(self):
        environment = os.environ | {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, self._settings],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=30)

    def _wait(self):
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            try:
                urlopen(self.url, timeout=5).close()
            except (URLError, TimeoutError):
                time.sleep(0.2)
            else:
                return
        raise AssertionError(f"the page does not come up: {self.log()}")

    def log(self):
        return self._log.read_text()

    def memory(self):
        """Return the bytes that the server and its children hold in memory."""
        server = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [server, *server.children(recursive=True)])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@cache
def load_app():
    """Return the module of the page."""
    spec = importlib.util.spec_from_file_location("space_app", APP / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


def main(settings):
    class TestedService(Service):
        """Waits or breaks where the text says so."""

        def show_text(self, text, model):
            _obey(text)
            return super().show_text(text, model)

        def reconstruct(self, text: str, model: str) -> dict:
            _obey(text)
            return super().reconstruct(text, model)

    choices = [bundled_choice()]
    gone = dict.fromkeys(("encoder", "probe"), UNLOADABLE)
    choices.append(ModelChoice(name=UNLOADABLE, **gone))
    service = TestedService(
        store=ModelStore(choices),
        published=Published(Path(settings["tables"])),
        examples=read_examples(Path(settings["examples"])),
    )
    app = load_app()
    app.build(service).launch(**app.LAUNCH, server_port=settings["port"], quiet=True)


def _obey(text):
    if text.startswith("crash"):
        raise RuntimeError(f"something broke in {SECRET}")
    if found := re.match(r"wait (\d+)", text):
        time.sleep(int(found.group(1)))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
