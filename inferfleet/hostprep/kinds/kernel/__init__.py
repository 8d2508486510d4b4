"""Values and modules of the running kernel: sysctl, /sys, modprobe."""
