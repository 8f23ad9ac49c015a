"""One side a module, each run in its own virtual environment by the code its peer suggests.

What stands here imports ``course.py`` and the peer, and nothing of this project: in the
environment of a peer there is nothing else.
"""
