"""The app on one of its steps, as a program of its own: python -m tests.safety.shown STEP DRAFT_AS_JSON."""

import json
import sys
from typing import Any

from core.errors import SftuiError
from tui_app.app import SftuiApp
from tui_app.dialogs.error import ErrorDialog


class Shown(SftuiApp):
    """The app, which also shows dialogs and messages of the words it is given, or ends with a defect of such words."""

    def on_mount(self) -> None:
        """Show what lies over the screen."""
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        for text in WORDS.get("errors", []):
            self.push_screen(ErrorDialog.of(SftuiError(text, text, text)))
            self.push_screen(ErrorDialog.of(ValueError(text)))
            self.push_screen(ErrorDialog.of(OSError(2, text, text)))
            self.notify(text, title=text)
        if "defect" in WORDS:
            secret = WORDS["secret"]
            raise ValueError(WORDS["defect"], len(secret))


WORDS: dict[str, Any] = json.loads(sys.argv[2])

if __name__ == "__main__":
    app = Shown(open_screen=sys.argv[1], draft_values=WORDS["draft"], warm=False)
    app.run()
    sys.exit(app.return_code)
