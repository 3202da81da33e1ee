"""A result goes to a repository of the hub, private unless it is wanted otherwise, and no token is told."""

from pathlib import Path

import pytest

from core.errors import SftuiError
from core.paths import cache_home
from core.runs.folder import RunFolder
from tests.results.test_export import export
from tests.results.upload_hub import taking_uploads


def test_an_adapter_is_pushed_to_a_private_repository(
    qlora: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    with taking_uploads(tmp_path, monkeypatch) as hub:
        made, heard = export(qlora, "push", Path("acme/tickets"))
        assert made.path == f"{hub.url}/acme/tickets"
        assert hub.private == {"acme/tickets": True}
        files = hub.files["acme/tickets"]
        weights = (qlora.adapter / "adapter_model.safetensors").read_bytes()
        assert files["adapter_model.safetensors"] == weights
        assert {"README.md", "adapter_config.json", "chat_template.jinja", "generation_config.json"} <= set(files)
        assert hub.tokens == {"Bearer hf_canary"}
        assert not any(b"hf_canary" in content or str(tmp_path).encode() in content for content in files.values())
        assert "you alone" in dict(made.facts)["seen by"]
        assert "uploading" in [one.step for one in heard]
        assert list((cache_home() / "exports").iterdir()) == [], "what was made for it is gone"
        export(qlora, "push", Path("acme/open"), public=True)
        assert hub.private["acme/open"] is False


def test_what_the_hub_refuses_is_told_without_the_token(
    qlora: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    with taking_uploads(tmp_path, monkeypatch) as hub:
        hub.refuses = 403
        with pytest.raises(SftuiError) as raised:
            export(qlora, "push", Path("acme/tickets"))
        assert "refuses" in raised.value.title
        assert "hf_canary" not in str(raised.value)
        for name in ("tickets", "acme/with space", "acme/../x"):
            with pytest.raises(SftuiError, match="No such repository"):
                export(qlora, "push", Path(name))
