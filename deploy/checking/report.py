"""How a check ends when it does not pass."""


class Failed(Exception):
    """Something is wrong; the text has one line for each fault."""


class Skipped(Exception):
    """The check cannot run here; the text says what is missing."""


def require(faults: list[str]) -> None:
    """Fails with these faults, if there are any."""
    if faults:
        raise Failed("\n".join(faults))
