"""The served demo without a browser: its API, its queue, many users at once, its staged copy."""

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import requires
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi, constants
from packaging.requirements import Requirement

from fresh_interpreter import result, start
from loopback_hub import TOKEN, LoopbackHub
from selmem.bundle import bundled_path
from selmem.cards.spaces import space_card
from selmem.encoder import load_encoder
from selmem.hub import stage
from selmem.space.examples import read_examples
from selmem.space.models import read_choices
from space_server import APP, ROOT, SECRET, UNLOADABLE, SpaceServer, load_app
from space_tables import PROBE, write_tables

logger = logging.getLogger(__name__)  # figures: --log-cli-level=INFO

MODEL = "mamba-tiny-probe"
# a minute, or as long as asked for; in between, the tests of every day
LOAD_S = float(os.environ.get("SELMEM_LOAD_SECONDS", "8"))
USERS = 10
GIB = 2**30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    write_tables(folder / "tables")
    with SpaceServer(folder) as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    with contextlib.closing(Client(server.url, verbose=False)) as connected:
        yield connected


def reconstruct(client, text, model=MODEL):
    return client.predict(text=text, model=model, api_name="/reconstruct")


def test_the_api_has_these_endpoints_and_no_others(client):
    described = client.view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == {"/reconstruct", "/models", "/omission"}
    assert described["unnamed_endpoints"] == {}
    names = [p["parameter_name"] for p in described["named_endpoints"]["/omission"]["parameters"]]
    assert names == ["model", "source", "length", "scheme", "rule"]


def test_the_documented_example_runs(server, capsys):
    code = re.search(r"```python\n(.*?)```", (APP / "about.md").read_text(), re.DOTALL).group(1)
    assert 'Client("selmem/reconstruction")' in code
    code = code.replace('Client("selmem/reconstruction")', f'Client("{server.url}", verbose=False)')
    names = {}
    exec(code, names)
    names["client"].close()
    lines = capsys.readouterr().out.splitlines()
    assert MODEL in lines[0]
    assert names["reading"]["text"] == "She bought two red apples and a loaf of bread."
    assert lines[-1].startswith(". ")


def test_the_documented_call_for_tables_runs(client):
    call = re.search(r"`(client\.predict\(.*?/omission\"\))`", (APP / "about.md").read_text())
    assert call is not None
    assert call.group(1).count(",") == 5
    assert f"The queue has {load_app().WAITING_USERS} places" in (APP / "about.md").read_text()
    rows = client.predict(PROBE, "news", 64, "pos", "aligned", api_name="/omission")
    assert {row["tag"]: row["omission_rate"] for row in rows} == {"NOUN": 0.5, "DET": 0.25}


@pytest.mark.parametrize(
    ("text", "model", "sentence"),
    [
        ("", MODEL, "There is no text: type or paste at least one word."),
        (" \n\t", MODEL, "There is no text"),
        ("a text", "someone/else", "the model 'someone/else' is not offered here; offered: mamba"),
        ("a text", "../../etc", "is not offered here"),
        ("a text", UNLOADABLE, f"the model {UNLOADABLE} cannot be loaded at the moment"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(client, text, model, sentence):
    with pytest.raises(AppError) as raised:
        reconstruct(client, text, model)
    assert sentence in str(raised.value)
    assert "Traceback" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_defect_shows_nothing_of_the_server(client, server):
    with pytest.raises(AppError) as raised:
        reconstruct(client, "crash")
    assert SECRET not in str(raised.value)
    assert "RuntimeError" not in str(raised.value)
    assert SECRET in server.log(), "the log has it"


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "😀 مرحبا 你好", "a\x00b\x07c\x1b"],
    ids=["markup", "scripts of the world", "control characters"],
)
def test_any_text_gets_an_answer(client, text):
    reading = reconstruct(client, text)
    assert text.startswith(reading["text"])
    assert reading["words"]


def test_half_a_surrogate_pair_gets_an_answer(server):
    assert join(server, "\ud83d alone", "half").status_code == 200
    with events(server, "half") as stream:
        answer = next(m for m in messages(stream) if m["msg"] == "process_completed")
    assert answer["success"]
    assert answer["output"]["data"][0]["text"] == "\ufffd alone"


def test_a_megabyte_is_cut_and_the_answer_says_so(client):
    reading = reconstruct(client, "One more word. " * 70_000)
    assert "Only the beginning of the text was read" in reading["note"]
    assert "1,049,999 characters" in reading["note"]


@pytest.mark.slow
def test_ten_users_at_once_get_their_own_answers(server, client):
    reconstruct(client, "This loads the models.")
    end = time.monotonic() + LOAD_S

    def use(number):
        answers = []
        with contextlib.closing(Client(server.url, verbose=False)) as own:
            while time.monotonic() < end:
                text = f"User {number} asks for the text of number {len(answers)} to come back."
                started = time.monotonic()
                answers.append(reconstruct(own, text)["text"] == text)
                times.append(time.monotonic() - started)
        return answers

    times = []
    with ThreadPoolExecutor(USERS) as pool:
        answers = list(pool.map(use, range(USERS)))
    assert all(all(of_user) for of_user in answers), "somebody got another's answer"
    assert all(answers), "somebody got no answer"
    assert server.memory() < 2 * GIB
    times.sort()
    logger.info(
        "%d answers in %.0f s, median %.2f s, longest %.2f s; %.2f GiB",
        len(times),
        LOAD_S,
        times[len(times) // 2],
        times[-1],
        server.memory() / GIB,
    )


@functools.cache
def function_index(server):
    config = httpx.get(f"{server.url}config", timeout=30).json()
    return next(d["id"] for d in config["dependencies"] if d["api_name"] == "reconstruct")


def join(server, text, session):
    """Put a text in the queue as a page would, and return the answer."""
    body = {"data": [text, MODEL], "fn_index": function_index(server), "session_hash": session}
    headers = {"Content-Type": "application/json"}
    url = f"{server.url}gradio_api/queue/join"
    return httpx.post(url, content=json.dumps(body), headers=headers, timeout=30)


def events(server, session):
    """Return the open stream of a session's messages; closing it is what leaving a page does."""
    url = f"{server.url}gradio_api/queue/data"
    return httpx.stream("GET", url, params={"session_hash": session}, timeout=60)


def messages(stream):
    for line in stream.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


@pytest.mark.slow
def test_the_queue_is_bounded_and_who_leaves_frees_a_place(server, client):
    reconstruct(client, "This loads the models.")
    limit = load_app().WAITING_USERS
    sessions = []
    for number in range(2 * limit):  # those that are computed meanwhile leave the queue
        answer = join(server, "wait 4 each", f"page {number}")
        if answer.status_code != 200:
            break
        sessions.append(f"page {number}")
    assert (answer.status_code, "Queue is full" in answer.text) == (503, True)
    assert limit <= len(sessions) < limit + 8
    with contextlib.ExitStack() as pages:
        for session in sessions:
            pages.enter_context(events(server, session))
    # all pages are closed; whoever comes now does not wait four seconds for each of them
    started = time.monotonic()
    answer = reconstruct(client, "Is there a place for me?")
    assert answer["text"] == "Is there a place for me?"
    assert time.monotonic() - started < 4 * limit / 4


def test_64_tokens_take_under_three_seconds(client):
    text = json.loads((bundled_path("sample") / "documents.jsonl").read_text().splitlines()[1])
    reading = reconstruct(client, text["text"][:300])
    times = []
    for _ in range(3):
        started = time.monotonic()
        reading = reconstruct(client, text["text"][:300])
        times.append(time.monotonic() - started)
    logger.info("%d tokens in %.2f s", reading["n_tokens"], min(times))
    assert 64 <= reading["n_tokens"] < 150
    assert min(times) < 10, "3 s on two cores of one's own; tests share them"


def test_the_readme_is_the_card_that_publishing_writes():
    made = space_card(APP, "selmem/reconstruction", ROOT / "hub_cards")
    assert (APP / "README.md").read_text() == made, "write what selmem.cards.spaces.space_card says"


def test_the_requirements_are_the_tested_versions():
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    versions = {re.sub("[-_.]+", "-", line).lower() for line in tested}
    versions.add("torch==2-13-0")
    for line in (APP / "requirements.txt").read_text().splitlines():
        assert re.sub("[-_.]+", "-", line).lower() in versions, line


def test_the_offered_models_are_hub_ids():
    assert [choice.name for choice in read_choices(APP / "models.json")] == [
        "selmem/mamba-tiny-probe"
    ]


def needed(distributions):
    """Return the names of distributions and of all that they need."""
    found, rest = set(), list(distributions)
    while rest:
        name = re.sub("[-_.]+", "-", rest.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except ModuleNotFoundError:
            continue
        needs = [Requirement(line) for line in lines]
        rest += [need.name for need in needs if not need.marker or need.marker.evaluate()]
    return found


FROM_HUB = """
from pathlib import Path
from selmem.space.models import ModelStore, read_choices
from selmem.space.reading import Annotator, read_text

store = ModelStore(read_choices(Path({choices!r})))
loaded = store.load(store.names[0])
found = read_text(loaded, "She bought two red apples.", Annotator()).to_dict()
"""


@pytest.mark.slow
def test_a_model_of_the_list_comes_from_the_hub_and_runs_no_code_from_there(tmp_path, client):
    folders = {}
    for name in ("mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe"):
        folders[name] = shutil.copytree(bundled_path(name), tmp_path / name)
        (folders[name] / "modeling_mamba_probe.py").write_text("raise SystemExit('foreign code')")
        config = json.loads((folders[name] / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "modeling_mamba_probe.MambaProbe"}
        (folders[name] / "config.json").write_text(json.dumps(config))
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        for name, folder in folders.items():
            api.create_repo(f"selmem/{name}")
            api.upload_folder(repo_id=f"selmem/{name}", folder_path=folder)
        code = FROM_HUB.format(choices=str(APP / "models.json"))
        found = result(start(code, hub.environment(tmp_path / "home", token=None)))
    expected = reconstruct(client, "She bought two red apples.")
    assert found | {"model": MODEL} == expected | {"model": MODEL}


STAGED = """
import sys
sys.path.insert(0, {folder!r})
import app
page = app.build(app.make_service())
import selmem
answer = app.make_service().reconstruct("She bought two red apples.", "mamba-tiny-probe")
found = {{"selmem": selmem.__file__, "text": answer["text"], "pos": answer["words"][0]["pos"]}}
"""


@pytest.mark.slow
def test_the_staged_space_starts_with_nothing_but_its_requirements(tmp_path):
    staged = stage("space", APP, "selmem/reconstruction", ROOT / "hub_cards", tmp_path / "out")
    lines = (APP / "requirements.txt").read_text().splitlines()
    required = needed(line.split("==")[0] for line in lines)
    extra = {"datasets", "evaluate", "statsmodels", "matplotlib", "accelerate", "jinja2"}
    blocked = {name for name in extra if name not in required}
    assert {"datasets", "evaluate", "statsmodels"} <= blocked
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    code = STAGED.format(folder=str(staged.folder))
    found = result(start(code, environment, blocked=blocked))
    assert Path(found["selmem"]).is_relative_to(staged.folder)
    assert (found["text"], found["pos"]) == ("She bought two red apples.", "PRON")


def test_the_examples_are_of_the_bundled_models():
    stored = json.loads((APP / "examples.json").read_text())
    assert stored["encoder_fingerprint"] == load_encoder(bundled_path("mamba-tiny")).fingerprint, (
        "the bundled models have changed: run scripts/space_examples.py"
    )
    examples = read_examples(APP / "examples.json")
    assert len(examples) >= 6
    service = load_app().make_service()
    again = service.reconstruct(examples[0].reading.text, MODEL)
    assert again["reconstruction"] == examples[0].reading.reconstruction
    assert asdict(examples[0].reading)["lengths"][-1]["retained"] == pytest.approx(
        again["lengths"][-1]["retained"]
    )
