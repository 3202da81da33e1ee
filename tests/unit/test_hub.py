"""The hub, asked: searching, looking at a model, and what is said when the hub cannot or will not answer."""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.models.hub import HubFile, HubModel, is_needed, model_info, search_models
from core.models.hub_client import page_of
from tests.hub_server import Hub, environment, git_digest, running_hub

ROOT = Path(__file__).parents[2]
CANARY = "hf_canaryCANARYcanary"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 100, "tokenizer.json": b"{ }"}


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(own_home, monkeypatch) as running:
        yield running


def found(text: str, limit: int = 30) -> list[str]:
    return [model.id for model in search_models(text, limit)]


def test_a_search_tells_what_is_known_of_a_model(hub: Hub) -> None:
    hub.add(
        "org/tiny",
        downloads=1234,
        likes=5,
        gated="manual",
        safetensors={"parameters": {"BF16": 1000, "F32": 10, "F8_E4M3": 8, "BOOL": 2}, "total": 1020},
        tags=["safetensors", "license:mit"],
    )
    assert list(search_models("TINY")) == [
        HubModel(
            id="org/tiny",
            downloads=1234,
            likes=5,
            size_bytes=2000 + 40 + 8 + 2,
            parameters=1020,
            license="mit",
            gated="manual",
            pipeline_tag="text-generation",
            library="transformers",
            last_modified=1772600767.0,
        )
    ]


def test_what_the_hub_does_not_tell_is_told_as_unknown(hub: Hub) -> None:
    hub.add("org/bare", safetensors=None, lastModified=None, library_name=None, tags=["safetensors"], likes=None)
    (model,) = search_models("bare")
    assert (model.size_bytes, model.parameters, model.license, model.library) == (None, None, None, None)
    assert (model.last_modified, model.likes, model.gated) == (None, 0, False)


def test_a_search_finds_what_can_be_trained_in_the_hubs_order(hub: Hub) -> None:
    hub.add("z/first")
    hub.add("a/pictures", pipeline_tag="image-text-to-text")
    hub.add("a/speech", pipeline_tag="automatic-speech-recognition")
    hub.add("a/pickled", tags=["transformers"])
    hub.add("a/adapter", library_name="peft")
    hub.add("a/apple", library_name="mlx")
    hub.add("a/last")
    assert found("") == ["z/first", "a/pictures", "a/last"]
    assert [model.id for model in search_models("", uses=["automatic-speech-recognition"])] == ["a/speech"]


def test_pages_are_asked_for_when_they_are_needed(hub: Hub) -> None:
    for number in range(120):
        hub.add(f"org/model-{number:03}", pipeline_tag="text-generation" if number % 2 else "fill-mask")
    models = search_models("model", limit=40)
    assert not hub.requests
    assert next(models).id == "org/model-001"
    assert len(hub.requests) == 1
    assert [model.id for model in models] == [f"org/model-{number:03}" for number in range(3, 80, 2)]
    assert len(hub.requests) == 2
    assert len(found("model", limit=1000)) == 60


def test_a_search_for_what_nobody_trains_ends(hub: Hub) -> None:
    for number in range(700):
        hub.add(f"org/mask-{number}", pipeline_tag="fill-mask")
    assert found("mask") == []
    assert len(hub.requests) == 10


def test_a_model_is_known_by_its_commit_and_its_files(hub: Hub) -> None:
    repository = hub.add("org/tiny", {**FILES, "pytorch_model.bin": b"pickle" * 100})
    older = repository.refs["main"]
    repository.commit({**FILES, "README.md": b"---\nlicense: mit\n---\n"}, name="pr/1")
    details = model_info("org/tiny")
    assert (details.sha, details.model.license, details.model.gated) == (older, "apache-2.0", False)
    assert [file.name for file in details.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert details.files[0] == HubFile("config.json", 2, git_digest(b"{}"))
    assert len(details.files[1].digest) == 64
    assert (details.total_bytes, details.problem) == (705, None)
    assert len(model_info("org/tiny", "pr/1").files) == 4
    assert model_info("org/tiny", older).sha == older


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config.json", "pytorch_model.bin"}, "pickle"),
        ({"config.json", "tiny.gguf"}, "no weights"),
        ({"adapter_config.json", "adapter_model.safetensors"}, "adapter"),
        ({"model.safetensors"}, "config.json"),
    ],
)
def test_what_cannot_be_trained_is_told_before_the_download(hub: Hub, files: set[str], problem: str) -> None:
    hub.add("org/odd", dict.fromkeys(files, b"x"))
    assert problem in (model_info("org/odd").problem or "")


def test_of_a_repository_only_what_training_needs_is_fetched() -> None:
    names = {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "merges.txt", "tokenizer.model.v3", "README.md", "LICENSE"),
        *("additional_chat_templates/tools.jinja", ".gitattributes", "pytorch_model.bin", "model.fp16.safetensors"),
        *("consolidated.00.pth", "original/model.safetensors", "onnx/config.json", "model.gguf", "modeling_own.py"),
        *("pytorch_model.bin.index.json", "../config.json", "/etc/config.json", "a\\..\\b.json", "./config.json"),
        *("model-00001-of-00002.safetensors", "consolidated.safetensors", "adapter_model.safetensors", "..json"),
    }
    assert {name for name in names if is_needed(name, names)} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "merges.txt", "tokenizer.model.v3", "README.md", "LICENSE"),
        "additional_chat_templates/tools.jinja",
    }
    shards = names - {"model.safetensors"}
    weights = {name for name in shards if is_needed(name, shards) and name.endswith(".safetensors")}
    assert weights == {"model-00001-of-00002.safetensors", "model.fp16.safetensors"}


def refused(model_id: str = "org/tiny", revision: str | None = None) -> SftuiError:
    with pytest.raises(SftuiError) as caught:
        model_info(model_id, revision)
    return caught.value


@pytest.mark.parametrize("name", ["", "a/b/c", "../etc", "a b", "org/", "ö/x", "-" * 3 + "/../.."])
def test_what_is_no_id_never_reaches_the_hub(hub: Hub, name: str) -> None:
    assert refused(name).title == "No such model"
    assert not hub.requests


def test_a_name_that_the_hub_does_not_know(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = refused("org/nothing")
    assert (stranger.title, "hf auth login" in stranger.hint) == ("No such model", True)
    assert "not logged in" in stranger.message
    monkeypatch.setenv("HF_TOKEN", CANARY)
    assert "this account" in refused("org/nothing").message
    hub.add("org/tiny")
    assert refused("org/tiny", "v9").title == "No such revision"


def test_each_refusal_says_what_to_do(hub: Hub) -> None:
    hub.add("org/tiny", FILES)

    def refusal(status: int, **headers: str) -> str:
        hub.refuse(status, times=1, **headers)
        return str(refused())

    gated = refusal(401, X_Error_Code="GatedRepo")
    assert f"{hub.url}/org/tiny" in gated
    assert "nobody is logged in" in gated
    gated = refusal(403, X_Error_Code="GatedRepo")
    assert f"Accept the terms at {hub.url}/org/tiny" in gated
    assert "not accepted" in refusal(401, X_Error_Message="Invalid credentials in Authorization header")
    assert "Try again in 2 min" in refusal(429, Retry_After="120")
    assert "Try again in 55 s" in refusal(429, RateLimit='"api";r=0;t=55')
    assert "Try again in five minutes" in refusal(429)
    assert "status 503" in refusal(503)
    assert "hf auth whoami" in refusal(403)
    assert model_info("org/tiny").files


def test_a_refused_search_says_so_too(hub: Hub) -> None:
    hub.refuse(429, Retry_After="10")
    with pytest.raises(SftuiError, match=r"Too many requests.*10 s"):
        found("tiny")


def test_a_hub_that_breaks_off_between_two_pages_keeps_what_was_shown(hub: Hub) -> None:
    for number in range(60):
        hub.add(f"org/model-{number}")
    models = search_models("model", limit=60)
    shown = [next(models) for _ in range(50)]
    hub.refuse(500)
    with pytest.raises(SftuiError, match="status 500"):
        next(models)
    assert len(shown) == 50


def test_offline_is_a_wish_and_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv(name, "1")
        assert refused().title == "Offline"
        monkeypatch.delenv(name)
    assert not hub.requests


def test_no_network_no_name_no_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert refused().title == "The hub does not answer"
    assert f"127.0.0.1:{port} takes no connection" in str(refused())

    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    assert "no DNS" in str(refused())
    monkeypatch.setenv("HF_ENDPOINT", "ftp://hub.example")
    assert "HF_ENDPOINT" in str(refused())


def test_an_answer_that_no_hub_gives(hub: Hub) -> None:
    repository = hub.add("org/tiny", FILES)
    hub.refuse(200, times=1)
    assert refused().title == "The hub's answer cannot be understood"
    repository.commits["../../../etc"] = repository.commits.pop(repository.refs["main"])
    repository.refs["main"] = "../../../etc"
    assert refused().title == "The hub's answer cannot be understood"


def test_the_page_that_is_shown_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert page_of("org/tiny") == "https://huggingface.co/org/tiny"
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example/hf/")
    assert page_of("org/tiny") == "https://mirror.example/hf/org/tiny"


def told(error: BaseException) -> str:
    """All that a careless report could show: the words, the repr, the traceback with every local, the context."""
    parts = [repr(error), str(error)]
    parts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert error.__cause__ is None
    assert error.__context__ is None
    return "\n".join(parts)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_a_refusal_never_tells_the_token(
    hub: Hub, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    hub.add("org/tiny", FILES)
    hub.refuse(status)
    with caplog.at_level(0):
        assert CANARY not in told(refused())
    assert hub.requests[-1].authorization == f"Bearer {CANARY}"
    assert CANARY not in caplog.text


@pytest.mark.parametrize("spoilt", [f"{CANARY}\x0b{CANARY}", f"{CANARY}é"])
def test_a_token_that_cannot_be_sent_is_not_told_either(hub: Hub, spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", spoilt)
    error = refused()
    assert "HF_TOKEN" in error.hint
    assert CANARY not in told(error)
    assert not hub.requests


def test_the_login_is_used_and_the_hub_is_light(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/tiny", FILES)
    (tmp_path / "token").write_text(CANARY)
    code = """
import sys
from core.models.hub import model_info, search_models
import core.models.download
assert "huggingface_hub" not in sys.modules
print([model.id for model in search_models("tiny")], model_info("org/tiny"))
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    variables = {**os.environ, **environment(hub), "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    shown, loaded = done.stdout.split("LOADED")
    assert "['org/tiny']" in shown
    assert not {"torch", "transformers", "numpy", "textual", "rich", "hf_xet", "pandas"} & set(loaded.split())
    assert {request.authorization for request in hub.requests} == {f"Bearer {CANARY}"}
    assert CANARY not in done.stdout + done.stderr


def test_the_library_itself_takes_this_server_for_a_hub(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi, constants, snapshot_download

    for number in range(3):
        hub.add(f"org/tiny-{number}", FILES)
    api = HfApi(endpoint=hub.url)
    assert [model.id for model in api.list_models(search="tiny", filter="safetensors")] == [
        f"org/tiny-{number}" for number in range(3)
    ]
    info = api.model_info("org/tiny-0", files_metadata=True)
    assert [sibling.size for sibling in info.siblings or []] == [2, 700, 3]
    assert constants.HF_HUB_OFFLINE is False
    folder = Path(snapshot_download("org/tiny-0", endpoint=hub.url, cache_dir=tmp_path))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    assert {request.method for request in hub.asked("/resolve/")} == {"HEAD"}
    assert [request.method for request in hub.asked("/storage/")] == ["GET"]
    assert hub.asked("/tree/")
