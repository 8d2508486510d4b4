"""systemd units, the clock, limits, whole files, containerd, and what the firmware shows."""
