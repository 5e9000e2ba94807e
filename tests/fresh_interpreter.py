"""Code in an interpreter of its own, where chosen packages cannot be imported."""

import json
import subprocess
import sys
import textwrap

BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def start(code, environment, *, blocked=()):
    """Start Python on `code`, which leaves something JSON-able in the variable `found`."""
    program = BLOCK.format(blocked=set(blocked)) + textwrap.dedent(code)
    program += "\nimport json; print('\\nRESULT' + json.dumps(found))\n"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process, timeout=300):
    """Return what the code left in `found`.

    Raises:
        AssertionError: it failed; shows its standard error.
    """
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == 0, stderr[-3000:]
    return json.loads(stdout.rpartition("RESULT")[2])
