"""``python -m pocketvision``."""

from .app.cli import main

main()
