"""`python -m lexloom`, the same as `lexloom`."""

from __future__ import annotations

from lexloom.cli import main

if __name__ == "__main__":
    main()
