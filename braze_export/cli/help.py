"""The look of ``--help``."""

from typing import Any, Final

import rich_click as click

PROGRAM: Final = "braze-export"

#: For every command and group.
SETTINGS: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "rich_help_config": click.RichHelpConfiguration(
        max_width=100,
        style_epilog_text="",
        style_helptext="",
    ),
}


def examples(*commands: str, title: str = "Examples") -> str:
    """Return the end of a help text: commands that can be pasted."""
    # A blank line ends a paragraph; single line breaks would be filled up to long lines.
    return "\n\n".join((f"{title}:", *(f"  $ {command}" for command in commands)))
