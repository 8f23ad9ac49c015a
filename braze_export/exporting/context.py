"""What the exports of a client have in common: how they are fetched, waited for and counted."""

from attrs import frozen

from braze_export.caller import Caller
from braze_export.downloads.links import Link, check_link
from braze_export.exporting.starting import Running
from braze_export.settings import ExportSettings


@frozen
class ExportContext:
    """What the exports of a client have in common.

    Attributes:
        caller: makes the calls of Braze; its transport fetches archives, without the key.
        settings: how to wait and to read.
        running: the exports that were started and have not ended.
    """

    caller: Caller
    settings: ExportSettings
    running: Running

    def link(self, url: str) -> Link:
        """Return what is behind a link.

        Raises:
            InputError: it is no link that profiles may be fetched through.
        """
        caller = self.caller
        return Link(
            url=check_link(url, plain_http=caller.base_url.startswith("http://")),
            transport=caller.transport,
            timeouts=caller.timeouts,
            user_agent=caller.user_agent,
            wall_clock=caller.wall_clock,
        )
