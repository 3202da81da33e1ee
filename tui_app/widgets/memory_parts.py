"""How the parts of the memory are called on the screen: a letter for the bar, words for the list."""

PARTS: dict[str, tuple[str, str]] = {
    "base_weights": ("W", "weights"),
    "quantization_constants": ("Q", "constants"),
    "adapter_weights": ("a", "adapters"),
    "gradients": ("g", "gradients"),
    "optimizer_state": ("o", "optimizer"),
    "activations": ("A", "activations"),
    "logits": ("h", "loss head"),
    "allocator_and_context": ("c", "context"),
}

LONG_NAMES = {
    "base_weights": "Base weights",
    "quantization_constants": "Quantization constants",
    "adapter_weights": "Adapter weights",
    "gradients": "Gradients",
    "optimizer_state": "Optimizer state",
    "activations": "Activations",
    "logits": "Loss head",
    "allocator_and_context": "Allocator and context",
}


def letter(name: str) -> str:
    """The letter of a part in the bar."""
    return PARTS[name][0] if name in PARTS else name[:1].upper()


def short_name(name: str) -> str:
    """One or two words, for the legend."""
    return PARTS[name][1] if name in PARTS else name.replace("_", " ")


def long_name(name: str) -> str:
    """Some words, for the list."""
    return LONG_NAMES.get(name, name.replace("_", " ").capitalize())
