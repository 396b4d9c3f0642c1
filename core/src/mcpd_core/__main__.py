"""The command ``mcpd``, also ``python -m mcpd_core``."""

import sys


def main() -> int:
    """Run the command line of this process and return its exit status.

    ``attach`` is dispatched before anything else is imported: a desktop client starts it anew for
    every session and waits for it.
    """
    argv = sys.argv[1:]
    if argv[:1] == ["attach"]:
        from .attach import main as attach

        return attach(argv[1:])
    from .cli import main as cli

    return cli(argv)


if __name__ == "__main__":
    sys.exit(main())
