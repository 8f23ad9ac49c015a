"""The local Braze: an HTTP server that answers the export endpoints as Braze documents them.

It stands in for Braze in the demo, in our tests and in those of our users. It imports nothing
from the rest of the package, so that it stays an independent witness of what a client sends.

    async with Sandbox(users=10_000) as sandbox:
        ...  # talk to sandbox.url with sandbox.api_key

The rooms, upper ones importing lower ones only:

    server     Sandbox: sockets, latency, counters, log
    wire       what goes onto the socket, and how a connection is dropped
    delivery   what happens when an export ends: own storage, callbacks
    downloads  the links to archives: signatures, readiness, ranges
    archives   the users of a segment in files, made in threads
    workspace  a request in, an answer out: keys, permissions, limits, endpoints
    endpoints  ids, segments, exports: one module each; checks are shared
    profiles   users as JSON bytes, from a few templates (samples)
    basics     settings, windows, faults, messages, people, scatter, tally
"""

from braze_export.sandbox.delivery import CallbackRecord
from braze_export.sandbox.faults import Fault
from braze_export.sandbox.people import Alias, Person
from braze_export.sandbox.server import Sandbox
from braze_export.sandbox.tally import Counters, RequestRecord
from braze_export.sandbox.windows import Window

__all__ = [
    "Alias",
    "CallbackRecord",
    "Counters",
    "Fault",
    "Person",
    "RequestRecord",
    "Sandbox",
    "Window",
]
