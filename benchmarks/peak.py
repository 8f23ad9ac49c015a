"""The most memory that a process has held. Linux."""


def peak_mb() -> float:
    """Return the most megabytes that this process ever held."""
    # Not from getrusage: what that tells begins with the memory of the process that started us.
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
