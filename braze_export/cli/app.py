"""The group of all commands."""

from typing import Any

import rich_click as click

from braze_export import __version__
from braze_export.cli.demo import demo
from braze_export.cli.failures import CODES, told
from braze_export.cli.help import PROGRAM, SETTINGS, examples
from braze_export.cli.ids import ids
from braze_export.cli.sandbox import sandbox
from braze_export.cli.screen import Screen
from braze_export.cli.segment import cancel, control_group, segment
from braze_export.cli.segments import segments


class App(click.RichGroup):
    """The group: whatever a command raises ends here as one line and an exit code."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the commands in the order in which they are needed."""
        return list(self.commands)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments of the group itself."""
        with told(Screen()):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        ctx.obj = Screen()
        with told(ctx.obj):
            return super().invoke(ctx)


@click.group(
    cls=App,
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export demo",
        "export BRAZE_REST_ENDPOINT=US-01 BRAZE_API_KEY=...",
        "braze-export ids --input ids.txt --output users.ndjson",
        "braze-export segments list",
        "braze-export segment SEGMENT_ID --fields external_id,email --output users.ndjson",
    )
    + "\n\n\u00a0\n\nExit codes:\n\n"
    + "\n\n".join(f"{code:<4} {meaning}" for code, meaning in CODES.items()),
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def app() -> None:
    """Take customer profiles and segments out of Braze.

    Try it without an account: braze-export demo
    """


for _command in (demo, sandbox, ids, segments, segment, control_group, cancel):
    app.add_command(_command)
