"""The engine of sftui: whole without the app, and free of any terminal toolkit."""
