"""What an exception of a library becomes: a title in words, and something to do."""

import errno

import pytest

from core.diagnosis import diagnose
from core.errors import SftuiError


class OutOfMemoryError(RuntimeError):
    """Of torch, by its name."""


class GatedRepoError(OSError):
    """Of huggingface_hub, by its name."""


CUDA = (
    "CUDA error: {}\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace "
    "below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.12 GiB is free."
    " Process 4121 has 18.02 GiB memory in use."
)
HUB = "{} for url: https://huggingface.co/api/models/meta-llama/Llama-3.1-8B"

# Texts as the libraries write them, with a part of the title and of what to do.
KNOWN: list[tuple[BaseException, str, str]] = [
    (OutOfMemoryError(OUT_OF_MEMORY), "GPU's memory ran out", "max_length"),
    (OutOfMemoryError("HIP out of memory."), "GPU's memory ran out", "max_length"),
    (RuntimeError(OUT_OF_MEMORY), "GPU's memory ran out", "gradient_accumulation_steps"),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        "GPU's memory ran out",
        "max_length",
    ),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa`"),
        "matrix product failed",
        "LD_LIBRARY_PATH",
    ),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmStridedBatchedEx`"),
        "cannot multiply in this type",
        "float16",
    ),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "cuDNN could not start", "Free memory"),
    (RuntimeError(CUDA.format("device-side assert triggered")), "cannot look up", "tokenizer"),
    (RuntimeError(CUDA.format("an illegal memory access was encountered")), "not its own", "sdpa"),
    (RuntimeError(CUDA.format("unspecified launch failure")), "kernel crashed", "Xid"),
    (RuntimeError(CUDA.format("the launch timed out and was terminated")), "took too long", "display"),
    (RuntimeError(CUDA.format("uncorrectable ECC error encountered")), "memory is faulty", "resume"),
    (RuntimeError(CUDA.format("CUDA-capable device(s) is/are busy or unavailable")), "GPU is taken", "sftui.device"),
    (RuntimeError(CUDA.format("invalid device ordinal")), "no such GPU", "nvidia-smi -L"),
    (
        RuntimeError(CUDA.format("no kernel image is available for execution on the device")),
        "not built for this GPU",
        "PyTorch",
    ),
    (RuntimeError(CUDA.format("system not yet initialized")), "not connected", "nvidia-fabricmanager"),
    (
        RuntimeError("Error 804: forward compatibility was attempted on non supported HW"),
        "driver does not fit",
        "LD_LIBRARY_PATH",
    ),
    (
        RuntimeError("Error 803: system has unsupported display driver / cuda driver combination"),
        "driver does not fit",
        "reboot",
    ),
    (
        RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"
        ),
        "driver is too old",
        "driver",
    ),
    (RuntimeError("Failed to initialize NVML: Driver/library version mismatch"), "driver was updated", "Reboot"),
    (RuntimeError("NVMLError_GpuIsLost: GPU is lost"), "GPU is gone", "Reboot"),
    (AssertionError("Torch not compiled with CUDA enabled"), "knows no GPU", "pytorch.org"),
    (RuntimeError("No CUDA GPUs are available"), "No GPU is seen", "CUDA_VISIBLE_DEVICES"),
    (
        RuntimeError(
            "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable "
            "CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
        ),
        "CUDA could not start",
        "nvidia_uvm",
    ),
    (
        RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
        "CUDA could not start",
        "nvidia-smi",
    ),
    (ValueError("Your setup doesn't support bf16/gpu."), "bfloat16", "float16"),
    (
        RuntimeError("ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"),
        "the same GPU",
        "CUDA_VISIBLE_DEVICES",
    ),
    (
        RuntimeError("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=31, OpType=ALLREDUCE"),
        "waited for each other",
        "first error",
    ),
    (
        RuntimeError("NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled system error"),
        "cannot talk",
        "NCCL_DEBUG",
    ),
    (
        RuntimeError(
            "The server socket has failed to listen on any local network address. port: 29500, useIpv6: false, "
            "code: -98, name: EADDRINUSE, message: address already in use"
        ),
        "port is taken",
        "MASTER_PORT",
    ),
    (
        RuntimeError("Attempted to use bitsandbytes native library functionality but it's not available."),
        "no binary for this machine",
        "python -m bitsandbytes",
    ),
    (
        RuntimeError("No compatible CUDA binary found at /venv/bitsandbytes/libbitsandbytes_cuda131.so"),
        "no binary for this CUDA",
        "BNB_CUDA_VERSION",
    ),
    (
        ImportError("Loading an AWQ quantized model: AWQ quantization requires gptqmodel"),
        "library for this quantization",
        "Install",
    ),
    (
        ValueError("Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM"),
        "does not fit on the GPU",
        "smaller model",
    ),
    (
        ValueError(
            "The model you are trying to fine-tune is quantized with X but that quantization method do not "
            "support training."
        ),
        "cannot be trained",
        "unquantized",
    ),
    (ValueError("Attempting to unscale FP16 gradients."), "float16 cannot be trained", "bfloat16"),
    (
        GatedRepoError("You are trying to access a gated repo.\nMake sure to have access to it at https://hf.co/a/b."),
        "gated",
        "hf auth login",
    ),
    (
        GatedRepoError("Access to model a/b is restricted and you are not in the authorized list."),
        "gated",
        "Ask for access",
    ),
    (
        OSError("404 Client Error. Repository Not Found for url: https://hf.co/a/b"),
        "no such",
        "spell",
    ),
    (OSError(HUB.format("401 Client Error: Unauthorized")), "does not accept the login", "hf auth login"),
    (OSError(HUB.format("429 Client Error: Too Many Requests")), "asks to wait", "Wait"),
    (OSError(HUB.format("503 Server Error: Service Unavailable")), "trouble", "later"),
    (
        OSError("Cannot find the requested files in the disk cache and outgoing traffic has been disabled."),
        "switched off",
        "local folder",
    ),
    (
        OSError("Cannot reach https://huggingface.co/api: offline mode is enabled."),
        "switched off",
        "local folder",
    ),
    (
        OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"),
        "certificate",
        "SSL_CERT_FILE",
    ),
    (ConnectionError("[Errno -3] Temporary failure in name resolution"), "network cannot be reached", "proxy"),
    (
        OSError("We couldn't connect to 'https://huggingface.co' to load the files"),
        "hub cannot be reached",
        "proxy",
    ),
    (
        ValueError("a/b requires you to execute the configuration file in that repo. set `trust_remote_code=True`"),
        "own code",
        "allow",
    ),
    (
        ValueError(
            "The checkpoint you are trying to load has model type `x9` but Transformers does not recognize this "
            "architecture."
        ),
        "does not know the model",
        "Upgrade",
    ),
    (
        ValueError("Due to a serious vulnerability issue in `torch.load`, we now require"),
        "pickle",
        "safetensors",
    ),
    (ValueError("Error while deserializing header: incomplete metadata, file not fully covered"), "cut off", "again"),
    (ValueError("Error while deserializing header: header too large"), "no safetensors", "again"),
    (
        RuntimeError("size mismatch for model.embed_tokens.weight: copying a param"),
        "do not fit",
        "config.json",
    ),
    (
        ValueError("Target modules {'q_prj'} not found in the base model. Please check the target modules"),
        "no such modules",
        "all-linear",
    ),
    (
        RuntimeError("element 0 of tensors does not require grad"),
        "Nothing is trained",
        "all",
    ),
    (
        ImportError("/venv/flash_attn_2_cuda.cpython-311.so: undefined symbol: _ZN3c105Error (flash_attn)"),
        "another PyTorch",
        "sdpa",
    ),
    (RuntimeError("FlashAttention only supports Ampere GPUs or newer."), "newer GPU", "sdpa"),
    (
        ImportError(
            "FlashAttention2 has been toggled on, but it cannot be used due to the following error: the package for "
            "FlashAttention2 doesn't seem to be installed."
        ),
        "cannot be used here",
        "sdpa",
    ),
    (RuntimeError("FlashAttention only support fp16 and bf16 data type"), "16 bit only", "bfloat16"),
    (
        RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
        "several devices",
        "sftui.device",
    ),
    (RuntimeError("mat1 and mat2 must have the same dtype, but got BFloat16 and Float"), "different types", "dtype"),
    (ValueError("the chat template is not training-compatible"), "Assistant-only loss", "assistant_only_loss"),
    (IndexError("index out of range in self"), "token that the model does not know", "tokenizer"),
    (
        ValueError("Conversation roles must alternate user/assistant/user/assistant/..."),
        "template refuses a row",
        "bad_rows",
    ),
    (ValueError("System role not supported"), "no system message", "user turn"),
    (
        ValueError("Cannot use chat template functions because tokenizer.chat_template is not set and no template"),
        "no chat template",
        "chat_template_path",
    ),
    (
        ValueError("num_samples should be positive, but got num_samples=0"),
        "No row is left",
        "max_length",
    ),
    (TypeError("Couldn't cast array of type struct<a: int64> to string"), "changes its type", "sftui data"),
    (
        ValueError("JSON parse error: Column(/messages/[]/content) changed from string to array in row 4"),
        "changes its type",
        "sftui data",
    ),
    (
        ValueError("data did not match any variant of untagged enum ModelWrapper at line 757479 column 3"),
        "newer than the library",
        "Upgrade",
    ),
    (
        ValueError("Asking to pad but the tokenizer does not have a padding token."),
        "no token to pad with",
        "pad_token",
    ),
    (
        ValueError("Couldn't instantiate the backend tokenizer from one of: (1) a `tokenizers` file"),
        "cannot be built",
        "where the weights come from",
    ),
    (
        ImportError("LlamaTokenizer requires the SentencePiece library but it was not found in your environment."),
        "needs a library",
        "sentencepiece",
    ),
    (ModuleNotFoundError("No module named 'httpx'", name="httpx"), "package is missing", "Install it with pip"),
    (
        RuntimeError(
            "DataLoader worker (pid 4121) is killed by signal: Bus error. dataloader's workers "
            "are out of shared memory."
        ),
        "Shared memory ran out",
        "--shm-size",
    ),
    (RuntimeError("DataLoader worker (pid(s) 4121) is killed by signal: Killed."), "was killed", "num_workers"),
    (
        RuntimeError("unable to open shared memory object </torch_4121> in read-write mode: Too many open files (24)"),
        "Shared memory ran out",
        "--shm-size",
    ),
    (MemoryError(), "host's memory ran out", "4 bit"),
    (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:115] err == 0. DefaultCPUAllocator: can't allocate memory: tried "
            "to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
        ),
        "host's memory ran out",
        "4 bit",
    ),
    (RuntimeError("can't start new thread"), "no more threads", "ulimit -u"),
    (
        ImportError("/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by bitsandbytes)"),
        "C++ library is too old",
        "libstdcxx",
    ),
    (
        ImportError("libcudart.so.13: cannot open shared object file: No such file or directory"),
        "library is missing",
        "reinstall",
    ),
    (RuntimeError("Failed to find C compiler. Please specify via CC environment variable."), "no C compiler", "gcc"),
    (RuntimeError("fatal error: Python.h: No such file or directory"), "header files", "python3-dev"),
    (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), "disk is full", "resume"),
    (
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "disk is full",
        "resume",
    ),
    (
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/7"),
        "written to its end",
        "space",
    ),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/runs/a"), "quota", "larger"),
    (PermissionError(errno.EACCES, "Permission denied", "/runs/a"), "may not be touched", "chmod"),
    (OSError(errno.EROFS, "Read-only file system", "/runs/a"), "only be read", "XDG_DATA_HOME"),
    (OSError(errno.EIO, "Input/output error", "/runs/a"), "disk is faulty", "dmesg"),
    (OSError(errno.ESTALE, "Stale file handle", "/runs/a"), "network disk", "Mount"),
    (OSError(errno.EMFILE, "Too many open files", "/runs/a"), "Too many files", "ulimit"),
]


@pytest.mark.parametrize(("error", "title", "hint"), KNOWN, ids=[str(number) for number in range(len(KNOWN))])
def test_known_failures_have_words_and_a_way_out(error: BaseException, title: str, hint: str) -> None:
    found = diagnose(error)
    assert title in found.title
    assert "not foreseen" not in found.title
    assert hint in found.hint
    assert found.message
    assert found.kind == type(error).__name__


def test_a_file_that_cannot_be_written_is_named() -> None:
    found = diagnose(OSError(errno.ENOSPC, "No space left on device", "/runs/a/optimizer.pt"))
    assert found.message == "/runs/a/optimizer.pt: No space left on device."


def test_our_own_errors_keep_their_words() -> None:
    found = diagnose(SftuiError("No weights", "There are none.", "Download them."))
    assert (found.title, found.message, found.hint) == ("No weights", "There are none.", "Download them.")


def test_an_error_that_wraps_the_telling_one_is_understood() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/cache/rows.arrow")
        except OSError as error:
            raise ValueError("An error occurred while generating the dataset") from error
    except ValueError as error:
        found = diagnose(error)
    assert found.title == "The disk is full"


def test_what_was_meant_to_be_forgotten_is_no_cause() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise ZeroDivisionError("division by zero") from None
    except ZeroDivisionError as error:
        found = diagnose(error)
    assert found.title == "ZeroDivisionError, not foreseen"


def test_what_nobody_foresaw_is_said_to_be_unforeseen() -> None:
    found = diagnose(ZeroDivisionError())
    assert (found.title, found.message) == ("ZeroDivisionError, not foreseen", "ZeroDivisionError")
    assert "traceback" in found.hint


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (OutOfMemoryError(OUT_OF_MEMORY), "gpu"),
        (RuntimeError(CUDA.format("out of memory")), "gpu"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "gpu"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "gpu"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "gpu"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "gpu"),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"), "gpu"),
        (RuntimeError("Error out of memory at line 380 in file /src/csrc/ops.cu"), "gpu"),
        (ValueError("Some modules are dispatched on the CPU or the disk. Make sure you have enough"), "gpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."), "host"),
        (MemoryError("std::bad_alloc"), "host"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "host"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), None),
        (ValueError("no idea"), None),
    ],
)
def test_whose_memory_ran_out_is_known_and_what_the_library_said_is_kept(error: Exception, memory: str | None) -> None:
    found = diagnose(error)
    assert found.memory == memory
    if memory is not None:
        assert str(error) in found.text
        assert "memory ran out" in found.title or "does not fit" in found.title
