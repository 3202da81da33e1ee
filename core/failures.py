"""What is known of the exceptions of torch, CUDA, the Hugging Face libraries, disks and networks.

Each entry names what the exception's text must contain, and says in words what it means and what to do. The first that
fits counts, so the narrow ones stand before the wide ones.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure."""

    parts: tuple[str, ...]
    """All of them are in the text; upper and lower case are the same."""
    title: str
    cause: str
    hint: str
    memory: Literal["gpu", "host"] | None = None
    """Whose memory ran out, where that is what happened."""


_RESUME = "The checkpoints are whole: resume the run."
_RIGHT_TOKENIZER = "Take the tokenizer's files from where the weights come from."
_DOWNLOAD_AGAIN = "Delete the weight files and download them again."
_OTHER_FILE = "A download may have saved an error page in its place."
_SMALLER = (
    "Halve per_device_train_batch_size and double gradient_accumulation_steps, shorten max_length, or turn "
    "activation_checkpointing on."
)
_ANOTHER_GPU = f"Choose another GPU with sftui.device, or wait for whoever uses this one. {_RESUME}"

_GPU_FULL = "The GPU's memory ran out"
_HOST_FULL = "The host's memory ran out"
_LESS_ON_HOST = "Close other programs, load in 4 bit, or shorten max_length."

_GPU = (
    Failure(("CUDA out of memory",), _GPU_FULL, "", _SMALLER, "gpu"),
    Failure(("CUDA error: out of memory",), _GPU_FULL, "The driver could not give more.", _SMALLER, "gpu"),
    Failure(
        ("CUBLAS_STATUS_ALLOC_FAILED",),
        _GPU_FULL,
        "cuBLAS could not get its workspace: the memory is full to the brim.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("CUBLAS_STATUS_NOT_INITIALIZED",),
        _GPU_FULL,
        "cuBLAS could not start: most often there is no room for its workspace.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("CUDNN_STATUS", "ALLOC"),
        _GPU_FULL,
        "cuDNN could not get its workspace: the memory is full to the brim.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("unable to find an engine to execute this computation",),
        _GPU_FULL,
        "cuDNN found no way to compute this in the memory that is left.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("CUSOLVER_STATUS_ALLOC_FAILED",),
        _GPU_FULL,
        "cuSOLVER could not get its workspace: the memory is full to the brim.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("Error out of memory at line",),
        _GPU_FULL,
        "bitsandbytes could not get memory, and ended the process.",
        _SMALLER,
        "gpu",
    ),
    Failure(
        ("CUDNN_STATUS_NOT_INITIALIZED",),
        "cuDNN could not start",
        "Most often the GPU's memory is full, or another cuDNN is found before PyTorch's own.",
        "Free memory on the GPU, and take other CUDA folders out of LD_LIBRARY_PATH.",
    ),
    Failure(
        ("device-side assert",),
        "The GPU met a number that it cannot look up",
        "Most often the tokenizer makes tokens that the model has no embedding for.",
        "Take the tokenizer that belongs to the model; a run on the CPU (sftui.device: cpu) names the place.",
    ),
    Failure(
        ("uncorrectable ECC error",),
        "The GPU's memory is faulty",
        "It found an error in its memory that it could not mend (ECC).",
        f"Reset or replace the GPU (its administrator can: nvidia-smi -q -d ECC). {_RESUME}",
    ),
    Failure(
        ("illegal memory access",),
        "A GPU kernel read memory that is not its own",
        "A kernel of attention or quantization is at fault, or the GPU's memory is.",
        "Set attn_implementation to sdpa or eager and resume; if it comes again, look for Xid lines in dmesg.",
    ),
    Failure(
        ("unspecified launch failure",),
        "A GPU kernel crashed",
        "A kernel is at fault, or the GPU: overheating and weak power do this too.",
        f"Look for Xid lines in dmesg. {_RESUME}",
    ),
    Failure(
        ("launch timed out",),
        "A GPU kernel took too long",
        "The GPU also drives a display, and the system ends kernels that keep it busy.",
        "Use a GPU without a display, or a smaller batch.",
    ),
    Failure(("GPU is lost",), "The GPU is gone", "It fell off its bus, as the driver says.", "Reboot the machine."),
    Failure(
        ("busy or unavailable",),
        "The GPU is taken",
        "It is in exclusive mode and another process has it.",
        _ANOTHER_GPU,
    ),
    Failure(
        ("invalid device ordinal",),
        "There is no such GPU",
        "A GPU was asked for that this process does not see.",
        "Look at `nvidia-smi -L` and CUDA_VISIBLE_DEVICES, and set sftui.device.",
    ),
    Failure(
        ("no kernel image is available",),
        "This PyTorch was not built for this GPU",
        "",
        "Install the PyTorch that fits the driver and the GPU: see pytorch.org/get-started.",
    ),
    Failure(
        ("driver/library version mismatch",),
        "The NVIDIA driver was updated while it runs",
        "The kernel's part of the driver and its library have different versions.",
        "Reboot the machine, or reload the driver's kernel modules.",
    ),
    Failure(
        ("forward compatibility was attempted on non supported",),
        "The NVIDIA driver does not fit",
        "A newer CUDA than the driver knows was put before it, and this GPU does not allow that.",
        "Take the folder cuda/compat out of LD_LIBRARY_PATH, or update the driver.",
    ),
    Failure(
        ("unsupported display driver",),
        "The NVIDIA driver does not fit",
        "Driver and CUDA have versions that do not go together.",
        "Update the driver and reboot the machine.",
    ),
    Failure(
        ("driver", "too old"),
        "The NVIDIA driver is too old for this PyTorch",
        "",
        "Update the driver, or install a PyTorch for an older CUDA.",
    ),
    Failure(
        ("system not yet initialized",),
        "The GPUs are not connected yet",
        "Machines with NVSwitch need NVIDIA's fabric manager, of the driver's own version.",
        "Start it: systemctl start nvidia-fabricmanager.",
    ),
    Failure(
        ("not compiled with CUDA enabled",),
        "This PyTorch knows no GPU",
        "It is the build for CPUs.",
        "Install the build for your CUDA: see pytorch.org/get-started.",
    ),
    Failure(
        ("No CUDA GPUs are available",),
        "No GPU is seen",
        "There is none, its driver does not answer, or CUDA_VISIBLE_DEVICES hides it.",
        "Look at nvidia-smi and at CUDA_VISIBLE_DEVICES; sftui.device: cpu trains without one.",
    ),
    Failure(
        ("CUDA unknown error",),
        "CUDA could not start",
        "The driver does not answer as it should; after a suspend its module for memory often hangs.",
        "Reload it (rmmod nvidia_uvm; modprobe nvidia_uvm), or reboot the machine.",
    ),
    Failure(
        ("CUDA driver initialization failed",),
        "CUDA could not start",
        "There is no NVIDIA GPU here, or its driver is not loaded.",
        "Look at nvidia-smi; sftui.device: cpu trains without one.",
    ),
    Failure(
        ("CUBLAS_STATUS_NOT_SUPPORTED",),
        "The GPU cannot multiply in this type",
        "cuBLAS has no kernel for these matrices on this GPU.",
        "Set dtype to float16 or float32.",
    ),
    Failure(
        ("CUBLAS_STATUS",),
        "A matrix product failed on the GPU",
        "Memory that is nearly full, a token without an embedding, or two CUDA versions side by side do this.",
        "Make the batch smaller; take other CUDA folders out of LD_LIBRARY_PATH; try sftui.device: cpu.",
    ),
    Failure(
        ("doesn't support bf16",),
        "This device cannot compute in bfloat16",
        "",
        "Set dtype to float16, or to auto, which looks at the device.",
    ),
)

_NCCL = (
    Failure(
        ("Duplicate GPU detected",),
        "Two processes were given the same GPU",
        "NCCL wants a GPU for each process.",
        "Start as many processes as there are GPUs, and look at CUDA_VISIBLE_DEVICES.",
    ),
    Failure(
        ("Watchdog caught collective operation timeout",),
        "The GPUs waited for each other in vain",
        "One process died or hung while the others waited.",
        f"Look at the end of each process' log for the first error. {_RESUME}",
    ),
    Failure(
        ("NCCL error",),
        "The GPUs cannot talk to each other",
        "",
        "Set NCCL_DEBUG=INFO and resume: the log then names the place. In a container, give it more shared memory "
        "(--shm-size).",
    ),
    Failure(
        ("address already in use",),
        "The port is taken",
        "Another distributed run on this machine uses the port that the processes meet at.",
        "Set MASTER_PORT to a free one.",
    ),
)

_QUANTIZATION = (
    Failure(
        ("bitsandbytes native library",),
        "bitsandbytes has no binary for this machine",
        "Its package holds none that fits this CUDA, or cannot load it.",
        "Run `python -m bitsandbytes`, which says what it looked for; upgrade bitsandbytes.",
    ),
    Failure(
        ("No compatible", "binary found at"),
        "bitsandbytes has no binary for this CUDA",
        "",
        "Upgrade bitsandbytes, or set BNB_CUDA_VERSION to a version it ships.",
    ),
    Failure(
        ("compiled without GPU support",),
        "This bitsandbytes knows no GPU",
        "",
        "Install the package from PyPI (pip install -U bitsandbytes).",
    ),
    Failure(
        ("quantization requires",),
        "A library for this quantization is missing",
        "",
        "Install what the message names, in the environment that sftui runs in.",
    ),
    Failure(
        ("dispatched on the CPU or the disk",),
        "The quantized model does not fit on the GPU",
        "",
        "Choose a smaller model or 4-bit, or free memory on the GPU.",
        "gpu",
    ),
    Failure(
        ("do not support training",),
        "This quantization cannot be trained",
        "",
        "Take the unquantized checkpoint and let sftui quantize it (load_in_4bit).",
    ),
    Failure(
        ("Attempting to unscale FP16 gradients",),
        "Weights in float16 cannot be trained",
        "The scaler that float16 needs works on float32 weights only.",
        "Set dtype to bfloat16, or to float32.",
    ),
)

_HUB = (
    Failure(
        ("gated repo",),
        "This repository is gated",
        "Its owner wants its terms to be accepted before anybody loads it.",
        "Accept them on the repository's page, then log in here with `hf auth login`.",
    ),
    Failure(
        ("is restricted", "authorized list"),
        "This repository is gated",
        "Its owner has not let this account in.",
        "Ask for access on the repository's page, and log in with `hf auth login`.",
    ),
    Failure(
        ("Repository Not Found",),
        "There is no such repository",
        "The hub does not know it, or it is private and this login may not see it.",
        "Check the spelling, and log in with `hf auth login`.",
    ),
    Failure(("Revision Not Found",), "There is no such revision", "", "Check model_revision: branch, tag or commit."),
    Failure(
        ("401 Client Error",),
        "The hub does not accept the login",
        "The token is missing, expired or revoked.",
        "Log in anew with `hf auth login`.",
    ),
    Failure(
        ("429 Client Error",),
        "The hub asks to wait",
        "Too many requests came from this address.",
        "Wait some minutes; a login (`hf auth login`) has a higher limit.",
    ),
    Failure(
        ("outgoing traffic has been disabled",),
        "This is not in the cache, and the hub is switched off",
        "HF_HUB_OFFLINE is set.",
        "Unset it and download first, or name a local folder.",
    ),
    Failure(
        ("offline mode is enabled",),
        "This is not in the cache, and the hub is switched off",
        "HF_HUB_OFFLINE is set.",
        "Unset it and download first, or name a local folder.",
    ),
    Failure(
        ("CERTIFICATE_VERIFY_FAILED",),
        "The hub's certificate is not trusted",
        "A proxy of the network puts its own certificate in between, or this machine's certificates are old.",
        "Set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to the file of your network's certificates.",
    ),
    Failure(
        ("name resolution",),
        "The network cannot be reached",
        "The name of the server could not be looked up.",
        "Check the connection and the proxy, or work with what is here: HF_HUB_OFFLINE=1.",
    ),
    Failure(
        ("couldn't connect to",),
        "The hub cannot be reached",
        "",
        "Check the connection and the proxy, or work with what is here: HF_HUB_OFFLINE=1.",
    ),
    Failure(("503 Server Error",), "The hub has trouble", "It answered that it is not available.", "Try again later."),
    Failure(
        ("trust_remote_code=True",),
        "This model brings its own code",
        "",
        "Read what it would run on the Model screen, and allow this revision there.",
    ),
)

_MODEL = (
    Failure(
        ("Weights only load failed",),
        "A file would run code when it is loaded",
        "It is pickled and names more than tensors and numbers, as no file does that a run has saved. Nothing was run.",
        "Do not use this folder: take one whose origin you know, or begin the run anew (`sftui resume RUN --from 0`).",
    ),
    Failure(
        ("does not recognize this architecture",),
        "This transformers does not know the model",
        "",
        "Upgrade transformers, or choose a model that it knows.",
    ),
    Failure(
        ("serious vulnerability issue in `torch.load`",),
        "These weights are a pickle",
        "A .bin file can run code when it is loaded, so it is not.",
        "Take a version of the model in safetensors.",
    ),
    Failure(("incomplete metadata",), "A weight file is cut off", "It is shorter than it says.", _DOWNLOAD_AGAIN),
    Failure(("MetadataIncompleteBuffer",), "A weight file is cut off", "It is shorter than it says.", _DOWNLOAD_AGAIN),
    Failure(
        ("header too large",), "A weight file is no safetensors", "A download saved something else.", _DOWNLOAD_AGAIN
    ),
    Failure(
        ("invalid header",), "A weight file is no safetensors", "A download saved something else.", _DOWNLOAD_AGAIN
    ),
    Failure(
        ("size mismatch for",),
        "The weights do not fit this model",
        "",
        "Take the config.json that belongs to the weights; an adapter needs the base it was made on.",
    ),
    Failure(
        ("Target modules", "not found in the base model"),
        "The model has no such modules",
        "",
        "Set lora_target_modules to all-linear, or to names that `sftui model` lists.",
    ),
    Failure(
        ("does not require grad",),
        "Nothing is trained",
        "No gradient reaches a trained weight.",
        "Set lora_target_modules to all-linear; with a model of your own, check that it returns a loss.",
    ),
    Failure(
        ("undefined symbol", "flash_attn"),
        "flash-attn was built for another PyTorch",
        "",
        "Build it anew (pip install --no-build-isolation --force-reinstall flash-attn), or use sdpa.",
    ),
    Failure(
        ("only supports Ampere GPUs or newer",),
        "Flash attention needs a newer GPU",
        "It runs from compute capability 8.0 on.",
        "Set attn_implementation to sdpa.",
    ),
    Failure(
        ("has been toggled on, but it cannot be used",),
        "Flash attention cannot be used here",
        "",
        "Install the package that the message names, or set attn_implementation to sdpa.",
    ),
    Failure(
        ("FlashAttention only support fp16 and bf16",),
        "Flash attention computes in 16 bit only",
        "",
        "Set dtype to bfloat16 or float16, or attn_implementation to sdpa.",
    ),
    Failure(
        ("Expected all tensors to be on the same device",),
        "The model lies on several devices",
        "",
        "Set sftui.device to one GPU; a quantized model must lie wholly on it.",
    ),
    Failure(
        ("must have the same dtype",),
        "Two parts of the model have different types",
        "",
        "Set dtype explicitly (bfloat16), and leave lora_modules_to_save empty to see whether it is the cause.",
    ),
)

_DATA = (
    Failure(
        ("not training-compatible", "chat template"),
        "Assistant-only loss does not work with this chat template",
        "The template does not mark what the assistant says, and TRL has no marked version of it.",
        "Turn assistant_only_loss off: then the whole conversation is learned.",
    ),
    Failure(
        ("index out of range in self",),
        "A row holds a token that the model does not know",
        "The tokenizer made a number that is beyond the rows of the model's embedding.",
        "Take the tokenizer that belongs to the model, or remove rows with special tokens such as <image>.",
    ),
    Failure(
        ("roles must alternate",),
        "The chat template refuses a row",
        "It wants user and assistant in turn, and a row has two of one kind together.",
        "Join such turns, or leave these rows out (sftui.bad_rows: skip).",
    ),
    Failure(
        ("System role not supported",),
        "The chat template knows no system message",
        "",
        "Move its text into the first user turn.",
    ),
    Failure(
        ("chat_template is not set",),
        "The tokenizer has no chat template",
        "It belongs to a base model, which knows no roles.",
        "Set chat_template_path (chatml), or choose the instruct version of the model.",
    ),
    Failure(
        ("num_samples=0",),
        "No row is left to train on",
        "All were dropped: what is learnt from lies beyond max_length.",
        "Make max_length longer, or the prompts shorter.",
    ),
    Failure(
        ("Couldn't cast array of type",),
        "A column changes its type",
        "",
        "Bring the column into one type in all rows; `sftui data FILE` names them.",
    ),
    Failure(
        ("changed from", "to", "Column("),
        "A column changes its type",
        "",
        "Bring the column into one type in all rows; `sftui data FILE` names them.",
    ),
    Failure(
        ("untagged enum ModelWrapper",),
        "The tokenizer's file is newer than the library",
        "tokenizer.json holds what this version of tokenizers does not know.",
        "Upgrade tokenizers and transformers.",
    ),
    Failure(
        ("does not have a padding token",),
        "The tokenizer has no token to pad with",
        "",
        "Set pad_token in tokenizer_config.json to a token that is used for nothing else.",
    ),
    Failure(("instantiate the backend tokenizer",), "The tokenizer cannot be built", "", _RIGHT_TOKENIZER),
    Failure(
        ("requires the SentencePiece library",),
        "The tokenizer needs a library",
        "It is stored as a SentencePiece model.",
        "Install it: pip install sentencepiece protobuf.",
    ),
)

_HOST = (
    Failure(
        ("killed by signal: Bus error",),
        "Shared memory ran out",
        "Workers hand rows over in /dev/shm, which is small in containers.",
        "Give the container more (--shm-size=8g), or set dataloader_num_workers to 0.",
    ),
    Failure(
        ("DataLoader worker", "killed by signal"),
        "A worker that reads rows was killed",
        "Most often the host's memory ran out and the system killed it.",
        "Set dataloader_num_workers to 0 or lower, and look for 'Out of memory' in dmesg.",
    ),
    Failure(
        ("unable to open shared memory object",),
        "Shared memory ran out",
        "",
        "Give the container more (--shm-size=8g), or set dataloader_num_workers to 0.",
    ),
    Failure(("can't allocate memory",), _HOST_FULL, "", _LESS_ON_HOST, "host"),
    Failure(("unable to allocate",), _HOST_FULL, "", _LESS_ON_HOST, "host"),
    Failure(("std::bad_alloc",), _HOST_FULL, "", _LESS_ON_HOST, "host"),
    Failure(("Cannot allocate memory",), _HOST_FULL, "", _LESS_ON_HOST, "host"),
    Failure(
        ("can't start new thread",),
        "The system allows no more threads",
        "",
        "Raise the limit of processes (ulimit -u), or end other programs.",
    ),
    Failure(
        ("GLIBCXX_",),
        "The system's C++ library is too old",
        "A package was built for a newer one, or an older one is found first.",
        "In conda: conda install -c conda-forge libstdcxx-ng; otherwise look at LD_LIBRARY_PATH.",
    ),
    Failure(
        ("cannot open shared object file",),
        "A library is missing",
        "",
        "Install the package that holds the file that the message names, or reinstall torch and its nvidia packages.",
    ),
    Failure(
        ("No module named",),
        "A Python package is missing",
        "Something that the run uses needs it; the traceback says what.",
        "Install it with pip, in the environment that sftui runs in.",
    ),
    Failure(
        ("find C compiler",),
        "There is no C compiler",
        "A kernel is compiled when it is first needed.",
        "Install gcc, or set CC to a compiler.",
    ),
    Failure(
        ("Python.h: No such file",),
        "Python's header files are missing",
        "A kernel is compiled when it is first needed.",
        "Install them (apt install python3-dev).",
    ),
    # Below transformers, safetensors and torch tell of a full disk in words of their own.
    Failure(("No space left on device",), "The disk is full", "", f"Free some space. {_RESUME}"),
    Failure(("os error 28",), "The disk is full", "", f"Free some space. {_RESUME}"),
    Failure(
        ("PytorchStreamWriter failed writing",),
        "A file could not be written to its end",
        "Most often the disk is full, or a quota is.",
        f"Free some space. {_RESUME}",
    ),
)

FAILURES = (*_GPU, *_NCCL, *_QUANTIZATION, *_HUB, *_MODEL, *_DATA, *_HOST)
