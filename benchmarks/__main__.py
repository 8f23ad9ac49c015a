"""Every benchmark, and one table at the end: ``python -m benchmarks``."""

from benchmarks import (
    archive,
    bucket,
    bulk,
    checksum,
    decode,
    downloads,
    end_to_end,
    kills,
    loop_hold,
    memory,
    rate_limit,
)
from benchmarks.table import show

if __name__ == "__main__":
    rows = []
    for benchmark in (
        decode,
        end_to_end,
        memory,
        loop_hold,
        archive,
        downloads,
        bucket,
        checksum,
        bulk,
        kills,
        rate_limit,
    ):
        print(f"{benchmark.__name__.removeprefix('benchmarks.')} ...")
        rows += benchmark.measure()
    show(rows)
