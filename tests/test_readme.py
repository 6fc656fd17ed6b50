"""Every line of Python in the README runs, in order, as a reader would type it."""

from __future__ import annotations

from pathlib import Path

from reading import blocks, reader, run

__all__ = ["reader"]

README = Path(__file__).parents[1] / "README.md"
BLOCKS = blocks(README)


def test_the_readme_runs_from_top_to_bottom(reader, capsys):
    assert len(BLOCKS) >= 4
    said: dict[str, object] = {}
    exec(compile(BLOCKS[0], "README, first block", "exec"), said)
    assert reader.calls == 1, "the second ask was to come from the cache"
    run(README, said, first=2)
    outcome = said["outcomes"][0]
    assert (outcome.status, outcome.tier) == ("hit", "memory")
    assert "hit memory" in capsys.readouterr().out
    assert said["cache"].stats().misses >= 1
    said["client"].close()
    said["cache"].close()


def test_the_readmes_first_answer_is_there_in_the_next_process(reader, tmp_path):
    import os
    import subprocess
    import sys

    import askonce

    roots = (str(Path(askonce.__file__).parents[1]), *filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", BLOCKS[0]], env=environment, check=True)
    assert reader.calls == 1
