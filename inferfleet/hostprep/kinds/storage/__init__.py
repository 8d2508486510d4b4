"""Directories, disks and mounts."""
