"""What runs the graphs: sessions, devices, memory, time and the life of a process."""
