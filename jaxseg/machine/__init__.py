"""What this machine has: devices, memory, a compiler, an output stream."""
