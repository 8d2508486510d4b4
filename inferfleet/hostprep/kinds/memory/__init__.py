"""Huge pages, swap space, and the guard of memory that CPU and GPU share."""
