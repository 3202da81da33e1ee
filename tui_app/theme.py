"""The look of sftui: quiet surfaces, one accent, and colours that only ever repeat what words say."""

from textual.theme import Theme

SFTUI_DARK = Theme(
    name="sftui-dark",
    primary="#7aa2c8",
    secondary="#8f9fb2",
    accent="#e0b36a",
    foreground="#d5d9de",
    background="#14171b",
    surface="#1a1e23",
    panel="#242a31",
    boost="#20262c",
    success="#86b58a",
    warning="#d9a650",
    error="#dd7573",
    dark=True,
    variables={
        "block-cursor-background": "#34506b",
        "block-cursor-foreground": "#f1f4f7",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": "#263341",
        "border": "#4f86b8",
        "border-blurred": "#313943",
        "footer-background": "#1a1e23",
        "footer-key-foreground": "#e0b36a",
        "footer-description-foreground": "#9aa5b1",
        "input-selection-background": "#4f86b8 40%",
        "scrollbar": "#39424d",
        "scrollbar-hover": "#4a5563",
        "scrollbar-active": "#5c6978",
        "scrollbar-background": "#171b20",
        "scrollbar-background-hover": "#171b20",
        "scrollbar-background-active": "#171b20",
        "scrollbar-corner-color": "#171b20",
    },
)
