"""The processor: frequency, idle states, hardware threads, interrupts."""
