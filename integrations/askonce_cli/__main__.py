"""`python -m askonce_cli`: the `askonce` command where no script is installed."""

from __future__ import annotations

from askonce_cli import main

if __name__ == "__main__":
    main()
