"""Which sftui this is."""


def version() -> str:
    """Its version; "not installed" where it runs from its source, found by PYTHONPATH alone."""
    # The app starts without it.
    from importlib import metadata

    try:
        return metadata.version("sftui")
    except metadata.PackageNotFoundError:
        return "not installed"
