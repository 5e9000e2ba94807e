import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from fresh_interpreter import result, start
from loopback_hub import TOKEN, LoopbackHub
from selmem import bundled_path
from selmem.cli import build_parser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import readme_tables  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = ("mamba-tiny", "mamba-tiny-probe")


@pytest.fixture(scope="module")
def hub_with_bundle():
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        for name in MODELS:
            api.create_repo(f"selmem/{name}")
            api.upload_folder(repo_id=f"selmem/{name}", folder_path=bundled_path(name))
        yield hub


def test_every_python_block_runs_as_it_stands(hub_with_bundle, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    program = "import io, contextlib\nfound = []\n" + "\n".join(
        f"shown = io.StringIO()\nwith contextlib.redirect_stdout(shown):\n    exec({block!r})\n"
        "found.append(shown.getvalue())"
        for block in blocks
    )
    environment = hub_with_bundle.environment(tmp_path, token=None)
    written, bits = result(start(program, environment))
    assert f"# {written.strip()}" in blocks[0]
    assert len(bits.splitlines()) == 9
    assert all(line.endswith("bits recovered") for line in bits.splitlines())


def test_tables_are_those_of_the_committed_results():
    for path, text in readme_tables.texts().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, "run scripts/readme_tables.py"
    assert len(readme_tables.bundle_table()) == 9
    assert len(readme_tables.trial_table()) == 2 + 10


def test_every_command_and_flag_of_the_readme_exists():
    parser = build_parser()
    helps = next(a.choices for a in parser._actions if a.dest == "command")
    lines = re.findall(r"^(?:\| `|    )selmem ([^`\n]*)", README, flags=re.MULTILINE)
    assert {line.split()[0] for line in lines} == set(helps)
    for line in lines:
        name = line.split()[0]
        if name not in ("train", "pretrain"):  # their flags are dataclass fields, tested there
            for flag in re.findall(r"--[a-z-]+", line):
                assert flag in helps[name].format_help(), f"{name} {flag}"


def test_pictures_and_files_that_the_readme_links_exist():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
