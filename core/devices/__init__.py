"""GPUs through NVML and the host through psutil."""
