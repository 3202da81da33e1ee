"""Which tensors of a checkpoint are linear layers, embeddings or the output head, by name and shape.

The names follow the checkpoints of transformers' models. A guess for display and arithmetic: the exact modules are
known only once the model's class has been built.
"""

import re

from core.models.checkpoint_files import TensorInfo

_MAMBA_TYPES = frozenset({"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"})
_READ_BY_MODEL = {"longcat_flash": ("classifier",), "mamba": ("dt_proj",)}
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


def is_expert(tensor: TensorInfo) -> bool:
    """Whether the tensor belongs to the routed experts of a mixture, or to their router."""
    return ".experts." in tensor.name or _NOT_LINEAR.search(tensor.name) is not None


def attention_outputs(tensors: tuple[TensorInfo, ...]) -> set[str]:
    """Return the names of the output weights of torch's own MultiheadAttention, which bitsandbytes leaves alone."""
    suffix = "in_proj_weight"
    return {f"{t.name.removesuffix(suffix)}out_proj.weight" for t in tensors if t.name.endswith(f".{suffix}")}


def output_features(tensor: TensorInfo) -> int:
    """Return the number of outputs of a linear layer; GPT-2 stores its weights as in × out, all others out × in."""
    if leaf_name(tensor) in {"c_attn", "c_fc"}:
        return max(tensor.shape)
    return min(tensor.shape) if leaf_name(tensor) == "c_proj" else tensor.shape[0]


def refused_by_peft(model_type: str) -> frozenset[str]:
    """Return the layers that peft refuses to adapt: Mamba's kernels use their weights directly."""
    return frozenset({"out_proj", "conv1d"}) if model_type in _MAMBA_TYPES else frozenset()


def never_quantized(model_type: str) -> tuple[str, ...]:
    """Return the last names of layers whose weights the model multiplies by itself, so that they must stay numbers.

    transformers leaves only those alone that its classes name rightly.
    """
    return _READ_BY_MODEL.get(model_type, ())


def parameter_tensors(tensors: tuple[TensorInfo, ...], tied_embeddings: bool) -> tuple[TensorInfo, ...]:
    """Return the tensors that become parameters; a tied output head that the file holds as well is left out."""
    found = tuple(tensor for tensor in tensors if tensor.is_parameter)
    if not tied_embeddings or not any(is_embedding(tensor) for tensor in found):
        return found
    return tuple(tensor for tensor in found if not is_output_head(tensor))
