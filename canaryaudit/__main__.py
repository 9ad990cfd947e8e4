"""The console script, and ``python -m canaryaudit``: an interruption ends quietly even while modules are loaded."""

import sys


def main() -> None:
    """Load the command line and hand over to it."""
    try:
        from canaryaudit.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("canaryaudit: interrupted: nothing is broken; the same command goes on\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
