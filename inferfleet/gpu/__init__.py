"""What NVIDIA GPUs of a machine are and do: asked through nvidia-smi there, through NVML here."""
