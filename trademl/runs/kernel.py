"""`python -m trademl.runs.kernel -f FILE`: the process of a job's kernel."""

import sys


def main() -> None:
    """Serve as `ipykernel_launcher` does."""
    # plotly loads jsonschema to show its first figure, which checks one address format with grammars that take two processor seconds to
    # build, and does without where they are not installed
    sys.modules.setdefault("rfc3987_syntax", None)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
