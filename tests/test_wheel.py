"""What a user installs: the wheel in an empty environment, far from this checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from selmem.tables import SCHEMAS, read_table

# it installs some 1.4 GB and runs the whole demo
pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
METADATA = re.compile(r"selmem-[\d.]+\.dist-info/")


def run(*command, cwd, **environment):
    """Run a command without any of this checkout on the path; it must succeed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**inherited, **environment},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def package_files():
    files = (path for path in (ROOT / "src/selmem").rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT / "src").as_posix()
        for path in files
        if "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return sdist and wheel, the wheel built from the sdist, both from a copy of the sources."""
    folder = tmp_path_factory.mktemp("built")
    probe = [*PIP, "download", "--quiet", "--no-deps", "--dest", folder / "index", "setuptools"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", source, cwd=folder)
    [sdist], [wheel] = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Give the `bin` of an environment with the wheel and what it requires, and no more."""
    folder = tmp_path_factory.mktemp("installed")
    # neither pip nor setuptools is in it, and imported modules only are compiled: it saves time
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    install = (*PIP, "--python", python, "install", "--quiet", "--no-compile")
    pinned = ("--constraint", ROOT / "constraints.txt")
    # torch first, as the Makefile does
    run(*install, *pinned, "torch", cwd=folder)
    run(*install, *pinned, built[1], cwd=folder)
    run(*PIP, "--python", python, "check", cwd=folder)
    yield python.parent
    shutil.rmtree(folder / "venv")


def without_network():
    """Return a command that runs another one where there is no network, or nothing."""
    for cut in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which(cut[0]) and not subprocess.run([*cut, "true"], check=False).returncode:
            return cut
    return []


def test_sdist_and_wheel_hold_every_file_of_the_package(built):
    sdist, wheel = built
    with ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if not METADATA.match(name)}
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert in_wheel == package_files()
    assert {f"src/{name}" for name in package_files()} <= in_sdist
    endings = {Path(name).suffix for name in in_wheel}
    assert endings >= {".safetensors", ".json", ".jsonl", ".j2", ".css", ".md", ".typed"}


def test_the_demo_runs_offline_from_the_wheel_alone(installed, tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HOME": str(home)}
    where = run(installed / "python", "-c", "import selmem; print(selmem.__file__)", cwd=here)
    assert Path(where).is_relative_to(installed.parent)

    shown = run(*without_network(), installed / "selmem", "demo", cwd=here, **offline)

    out = here / "outputs/demo"
    assert list(here.iterdir()) == [here / "outputs"]
    for name, schema in SCHEMAS.items():
        table = read_table(out / f"{name}.parquet")
        assert table.num_rows
        assert set(schema.names) <= set(table.column_names)
    assert len(list((out / "figures").glob("*.png"))) >= 8
    assert "</html>" in (out / "report.html").read_text(encoding="utf-8")
    *table_lines, path = shown.splitlines()
    assert path == "outputs/demo/report.html"
    assert any(line.split()[:1] == ["NOUN"] for line in table_lines)
