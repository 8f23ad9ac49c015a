"""``python -m braze_export.cli``: the same as ``braze-export``."""

from braze_export.cli import main

if __name__ == "__main__":
    main()
