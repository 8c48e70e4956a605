"""Publishing a run, against a small stand-in for the Hub's API on 127.0.0.1."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.train.test_card import RECORD, facts
from train import push


class Hub(BaseHTTPRequestHandler):
    """Takes a repository and one commit, everything inline; keeps what came."""

    commits: list[list[dict[str, Any]]]
    refuse = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.refuse:
            self.answer({"error": "no"}, 403)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.address}/me/mine", "name": "me/mine"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in asked
            ]
            self.answer({"files": modes})
        elif "/commit/" not in self.path:
            self.answer({})  # a look at the card's metadata
        else:
            self.commits.append([json.loads(line) for line in body.splitlines()])
            url = f"{self.address}/me/mine/commit/abc"
            self.answer({"commitUrl": url, "commitOid": "abc", "success": True})

    def do_GET(self) -> None:
        if self.path == "/api/models/org/base":
            self.answer({"id": "org/base", "cardData": {"license": "apache-2.0"}})
        else:
            self.answer({"error": "no"}, 404)

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("FreshHub", (Hub,), {"commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield handler
    server.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "calc_sft"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps(facts()))
    (folder / "record.json").write_text(json.dumps(RECORD))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "chat_template.jinja").write_text("of the run's first day")
    (folder / "README.md").write_text("without scores")
    return folder


def test_card_adapter_and_record_go_up_in_one_commit(
    run: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert push.main([str(run), "me/mine"]) == 0
    assert capsys.readouterr().out.endswith("/me/mine/commit/abc\n")
    (commit,) = hub.commits
    names = [line["value"]["path"] for line in commit if line["key"] == "file"]
    expected = {*before}
    assert set(names) == expected
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_what_goes_up_names_the_base_by_its_hub_id(run: Path) -> None:
    files = push.contents(run, "me/mine", None)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    card = files["README.md"].decode()
    assert "model-index:" in card
    assert 'PeftModel.from_pretrained(base, "me/mine")' in card
    other = push.contents(run, "me/mine", "org/other")
    assert b"base_model: org/other" in other["README.md"]


@pytest.mark.parametrize(("base", "licence"), [("org/base", "apache-2.0"), ("org/gone", "other")])
def test_the_card_has_the_licence_that_the_base_states_on_the_hub(
    base: str, licence: str, run: Path, hub: type[Hub]
) -> None:
    """It was always `other` for a base of the Hub."""
    card = push.contents(run, "me/mine", base)["README.md"].decode()
    assert f"license: {licence}\n" in card


def test_a_dry_run_prints_the_card_and_uploads_nothing(
    run: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push.main([str(run), "me/mine", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "base_model: org/base" in out
    assert "adapter_model.safetensors" in out
    assert hub.commits == []


def test_what_the_hub_refuses_is_one_line(
    run: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuse = True
    assert push.main([str(run), "me/mine"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the Hub refused me/mine: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("spoil", "repo", "message"),
    [
        ("train.json", "me/mine", "no finished run"),
        ("adapter_config.json", "me/mine", "no adapter"),
        ("adapter_model.safetensors", "me/mine", "no weights (adapter_model.safetensors)"),
        (None, "mine", "mine is no repository id"),
        ("local base", "me/mine", "name its Hub id with --base"),
        ("torn", "me/mine", "error: "),
    ],
)
def test_what_cannot_be_published_is_one_line(
    spoil: str | None, repo: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if spoil == "local base":
        (run / "train.json").write_text(json.dumps(facts(model_name_or_path=str(run))))
    elif spoil == "torn":
        (run / "record.json").write_text("{")
    elif spoil:
        (run / spoil).unlink()
    assert push.main([str(run), repo]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["{}", "[]", "5", '{"recipe": []}', '{"recipe": {}}'])
@pytest.mark.parametrize("name", ["train.json", "record.json", "adapter_config.json"])
def test_a_file_of_another_shape_is_one_line(
    name: str, content: str, run: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    """A list was a traceback, and of what lacked a field there was its name alone."""
    (run / name).write_text(content)
    code = push.main([str(run), "me/mine", "--dry-run"])
    err = capsys.readouterr().err
    is_one = name == "adapter_config.json" and content.startswith("{")
    is_none = name == "record.json" and content in ("{}", "[]")
    if is_one or is_none:
        assert (code, err) == (0, "")
        return
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith(f"error: {run}: its JSON files are not as this program wrote them (")
