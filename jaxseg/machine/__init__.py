"""Properties of the machine: devices, memory and standard output."""
