import time

import numpy as np
from playwright.sync_api import expect

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.info import SessionInfo
from neural.session.rank_folders import rank_folder
from neural.session.writer import SessionWriter

WORLD_SIZE = 4
PLANTED, ABSENT = 1, 3


def record(session, rank, world_size):
    writer = SessionWriter(rank_folder(session, rank))
    writer.write_info(SessionInfo("Net", "pytorch", time.time(), 1, "finished", rank=rank, world_size=world_size), 0)
    for step in range(20):
        loss = (3.0 if rank == PLANTED else 1.0) + 0.1 * ((step * (rank + 1)) % 7)
        rows = {"activations": statistics.reference_row(np.arange(3.0))[None]}
        writer.write(Frame(step, time.time(), rows, scalars={"loss": loss, "overhead": 0.01}))
    writer.close()


def test_the_ranks_of_a_job_stand_side_by_side(start, look, tmp_path):
    for rank in range(WORLD_SIZE):
        if rank != ABSENT:
            record(tmp_path / "job" / "neuraldbg", rank, WORLD_SIZE)
    record(tmp_path / "single" / "neuraldbg", 0, 1)
    with start(tmp_path, "tensorboard", "--logdir", ".", "--port", 0) as command:
        address = command.said(r"http://\S+:\d+/")[0]
        with look(f"{address}#neuraldbg&p.neuraldbg.view=overview&p.neuraldbg.run=job") as viewer:
            panel = viewer.tab.get_by_role("region", name="Ranks", exact=True)
            remarks = panel.locator(".card")
            expect(remarks).to_have_count(2)
            expect(remarks.first).to_contain_text("Rank 1 differs")
            expect(remarks.first).to_contain_text("Its loss is 3.30, the others' 1.10 to 1.50 at step 19.")
            expect(remarks.last).to_contain_text("Rank 3 recorded nothing")
            rows = panel.locator("tbody tr")
            expect(rows).to_have_count(3)
            expect(rows.nth(PLANTED)).to_have_text("1finished193.30+1.80")
            expect(panel.locator("figure.chart")).to_have_count(1)
            expect(panel.locator("canvas").first).to_be_visible()
        with look(f"{address}#neuraldbg&p.neuraldbg.view=overview&p.neuraldbg.run=single") as viewer:
            expect(viewer.tab.locator(".facts")).to_be_visible()
            expect(viewer.tab.get_by_role("region", name="Ranks", exact=True)).to_have_count(0)
