"""Bulk jobs: millions of identifiers in, files or tables out, killed and resumed at will.

::

    from braze_export import BrazeClient
    from braze_export.jobs import export_ids

    async with BrazeClient.from_env() as braze:
        report = await export_ids(braze, "ids.csv", "users.ndjson", fields=["email"])
"""

from braze_export.jobs.job import export_ids
from braze_export.jobs.values import (
    CustomAttributes,
    Input,
    InputFormat,
    JobProgress,
    JobReport,
    Moment,
    Phase,
    Table,
)

__all__ = [
    "CustomAttributes",
    "Input",
    "InputFormat",
    "JobProgress",
    "JobReport",
    "Moment",
    "Phase",
    "Table",
    "export_ids",
]
