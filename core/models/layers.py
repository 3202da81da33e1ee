"""Which tensors of a checkpoint are linear layers, embeddings or the output head, by name and shape.

The names follow the checkpoints of transformers' models. A guess for display and arithmetic: the exact modules are
known only once the model's class has been built.
"""

import re

from core.models.checkpoint_files import TensorInfo

_EMBEDDINGS = frozenset({"wte", "wpe", "shared", "word_embeddings", "position_embeddings"})
_HEADS = frozenset({"lm_head", "embed_out", "output_layer"})
_ROOT_HEADS = frozenset({"head.weight", "output.weight"})
# transformers 5 fuses experts into one 3-D parameter and keeps routers as bare parameters: neither is nn.Linear.
_NOT_LINEAR = re.compile(r"\.experts\.\d+\.|\.(mlp|block_sparse_moe|feed_forward|moe)\.gate\.weight$|\.router\.weight$")


def leaf_name(tensor: TensorInfo) -> str:
    """Return the name of the module that holds the tensor: "q_proj" of "model.layers.0.self_attn.q_proj.weight"."""
    parts = tensor.name.split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


def is_output_head(tensor: TensorInfo) -> bool:
    """Whether the tensor is the weight that turns hidden states into logits."""
    return tensor.name in _ROOT_HEADS or (tensor.name.endswith(".weight") and leaf_name(tensor) in _HEADS)


def is_embedding(tensor: TensorInfo) -> bool:
    """Whether the tensor is a token or position embedding table."""
    name = leaf_name(tensor)
    table = name in _EMBEDDINGS or ("embed" in name and not name.endswith(("proj", "projection")))
    return tensor.name.endswith(".weight") and len(tensor.shape) == 2 and table and not is_output_head(tensor)


def is_linear(tensor: TensorInfo) -> bool:
    """Whether the tensor is the weight of a linear layer that bitsandbytes quantizes and LoRA adapts.

    The output head is not: transformers keeps it in the compute dtype, and peft's "all-linear" leaves it out.
    """
    return (
        tensor.name.endswith(".weight")
        and len(tensor.shape) == 2
        and not is_embedding(tensor)
        and not is_output_head(tensor)
        and _NOT_LINEAR.search(tensor.name) is None
    )


def parameter_tensors(tensors: tuple[TensorInfo, ...], tied_embeddings: bool) -> tuple[TensorInfo, ...]:
    """Return the tensors that become parameters; a tied output head that the file holds as well is left out."""
    found = tuple(tensor for tensor in tensors if tensor.is_parameter)
    if not tied_embeddings or not any(is_embedding(tensor) for tensor in found):
        return found
    return tuple(tensor for tensor in found if not is_output_head(tensor))
