"""What the driver's error numbers (Xid) mean to whoever trains: NVIDIA's table of them, in short."""

_RESTART = "Resume the run; if it comes again, reset the GPU or reboot the machine."
_RESET = "Reset the GPU (nvidia-smi --gpu-reset, as root, with nothing on it) or reboot the machine, then resume."
_REPLACE = f"{_RESET} If it comes again, have the GPU looked at: its memory is failing."
_PROGRAM = "A kernel is at fault, perhaps another program's on this GPU: try attn_implementation sdpa or eager."

_KNOWN: dict[int, tuple[str, str]] = {
    8: ("a kernel took too long", "Use a GPU that drives no display."),
    13: ("a kernel met an error while it computed", _PROGRAM),
    31: ("a kernel touched memory that is not its own", _PROGRAM),
    32: ("a command reached the GPU broken", _RESTART),
    38: ("the driver's firmware failed", _RESET),
    43: ("a program's work on the GPU was ended after a fault of its own", _PROGRAM),
    45: ("work on the GPU was cleared away, after an error or because its program ended", _RESTART),
    46: ("the GPU has stopped working", _RESET),
    48: ("an error in the GPU's memory could not be mended (ECC)", _REPLACE),
    61: ("the GPU's own controller halted", _RESET),
    62: ("the GPU's own controller halted", _RESET),
    63: (
        "a faulty row of the GPU's memory is put out of use",
        "Nothing is wrong with the run. Reset the GPU after it.",
    ),
    64: ("a faulty row of the GPU's memory could not be put out of use", _REPLACE),
    69: ("a kernel met an error while it computed", _PROGRAM),
    74: ("the link between the GPUs (NVLink) failed", _RESET),
    79: ("the GPU has fallen off the bus", "Reboot the machine, then resume. Heat and weak power do this."),
    92: ("many errors in the GPU's memory were mended (ECC)", "The run is right so far. Have the GPU looked at."),
    94: ("an error in the GPU's memory ended the program that met it (ECC)", _REPLACE),
    95: ("an error in the GPU's memory may have reached every program on it (ECC)", _REPLACE),
    109: ("a switch between programs on the GPU took too long", _RESTART),
    119: ("the GPU's system processor does not answer", _RESET),
    120: ("the GPU's system processor failed", _RESET),
    140: ("an error in the GPU's memory could not be mended (ECC)", _REPLACE),
    154: ("the GPU needs a reset or a reboot", _RESET),
}


def xid_words(code: int) -> tuple[str, str]:
    """What has happened, and what to do; "Xid 79: the GPU has fallen off the bus"."""
    what, hint = _KNOWN.get(code, ("an error that the driver has only this number for", _RESTART))
    return f"Xid {code}: {what}", hint
