"""The console script and ``python -m canaryaudit``; an interruption ends quietly even while modules load."""

import sys


def main() -> None:
    """Load and run the command line."""
    try:
        from canaryaudit.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("canaryaudit: interrupted; finished work is kept, rerun the command to resume\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
