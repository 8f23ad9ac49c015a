import asyncio

import pytest

from braze_export import JobChangedError
from braze_export.jobs import JobProgress
from tests.jobs.conftest import World

KNOWN = [f"u{n}" for n in range(1, 1001)]


@pytest.mark.parametrize("content", ["u1\n" * 1000, "u1\n", "".join(f"{n}\n" for n in KNOWN[::-1])])
def test_an_input_that_changes_under_the_job_is_told(world: World, content: str) -> None:
    world.give(*KNOWN)
    changed = asyncio.Event()

    async def change(progress: JobProgress) -> None:
        if progress.done and not changed.is_set():
            changed.set()
            await asyncio.to_thread(world.input.write_text, content)

    with pytest.raises(JobChangedError, match=r"ids.txt was changed while"):
        world.export(on_progress=change, progress_every=0.0001, concurrency=1)
    assert changed.is_set()
    assert not world.output.exists()
    with pytest.raises(JobChangedError, match="the content of the input has changed"):
        world.export(concurrency=1)
    assert world.export(fresh=True).complete
