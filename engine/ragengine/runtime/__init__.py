"""What graphs run on: sessions, devices, memory, deadlines, progress, and the life of loaded objects."""
