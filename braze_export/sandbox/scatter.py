"""Numbers into ids and back: reversible, so that no table of ids needs to be held."""

import random

UUID_BITS = 80

_LOW_BITS = 48
_LOW = (1 << _LOW_BITS) - 1


class Scatter:
    """A reversible map of the numbers below ``2**bits``; ids made of them look random."""

    def __init__(self, bits: int, key: str) -> None:
        dice = random.Random(key)
        self._mask = (1 << bits) - 1
        self._factor = dice.getrandbits(bits) | 1  # odd, so that it has an inverse
        self._shift = dice.getrandbits(bits)
        self._inverse = pow(self._factor, -1, 1 << bits)

    def forth(self, number: int) -> int:
        """Scatter ``number``."""
        return (number * self._factor + self._shift) & self._mask

    def back(self, number: int) -> int:
        """Undo ``forth``."""
        return (number - self._shift) * self._inverse & self._mask


class Hash:
    """Numbers that look random even for neighbours; there is no way back."""

    def __init__(self, key: str) -> None:
        self._scatter = Scatter(64, key)

    def __call__(self, number: int) -> int:
        """Return 32 bits."""
        once = self._scatter.forth(number)
        # A product alone walks in even steps; folded and multiplied again it does not.
        return self._scatter.forth(once ^ once >> 29) >> 32


def uuid_text(number: int) -> bytes:
    """Write a number of ``UUID_BITS`` bits as a UUID."""
    return b"%08x-83db-4789-9675-%012x" % (number >> _LOW_BITS, number & _LOW)


def uuid_number(text: str) -> int:
    """Undo ``uuid_text``; lenient: who looks something up compares the text afterwards."""
    return hex_number(text[:8] + text[-12:])


def hex_number(text: str) -> int:
    """Read hexadecimal digits; 0 for anything else."""
    try:
        return int(text, 16)
    except ValueError:
        return 0
