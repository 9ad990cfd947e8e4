"""Write the golden files, the published JSON Schemas and the page of commands anew: ``python -m tests.golden``."""

from canaryaudit.report.json_schema import generate_schemas
from tests.docs import cli_reference
from tests.golden import FILES, produce


def main() -> None:
    """Write what has changed, and say so."""
    wanted = (
        {FILES / name: text for name, text in produce().items()}
        | generate_schemas()
        | {cli_reference.PAGE: cli_reference.page()}
    )
    for path in list(FILES.iterdir()):
        if path not in wanted:
            path.unlink()
            print(f"removed {path.name}")
    for path, text in wanted.items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
