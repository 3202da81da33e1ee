"""Bringing an exported folder to a repository of the hub."""

from pathlib import Path

from core.errors import SftuiError
from core.models.hub_client import in_words, page_of
from core.text import safe


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Upload all files of a folder in one commit, and return the page's address. A new repository is private.

    Raises SftuiError, which tells of no token.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # loaded on first use

    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise SftuiError("No such repository", f"“{safe(repository)}” is no id.", "Give OWNER/NAME.") from error
    if "/" not in repository:
        raise SftuiError("No such repository", f"“{safe(repository)}” has no owner.", "Give OWNER/NAME.")

    def upload() -> str:
        api = HfApi(library_name="sftui")
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload with sftui",
            ignore_patterns=[".*"],
        )
        return page_of(repository)

    return in_words(upload, repository)
