"""What a server saw of one side."""

from attrs import frozen


@frozen
class Counts:
    """Sums over one work.

    Attributes:
        requests: that came in, refused ones included.
        refused: answers with status 429.
        connections: opened.
    """

    requests: int
    refused: int
    connections: int
