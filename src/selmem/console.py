"""What all commands share: how they log, and how they say in one line what is wrong."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm


class Parser(argparse.ArgumentParser):
    """A parser that answers wrong arguments with one line in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


@contextmanager
def terminal_log(level: int) -> Iterator[None]:
    """Write what the package logs from `level` on to standard error, meanwhile."""
    logger, handler = logging.getLogger("selmem"), _TerminalHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks; for a system error, file and cause."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


class _TerminalHandler(logging.Handler):
    """Writes each message on a line of its own, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def chunk_length(text: str) -> int:
    """Return tokens per chunk, for the parser of arguments."""
    from selmem.tables import WHOLE_TEXT

    if text == "whole":
        return WHOLE_TEXT
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of tokens nor `whole`")
    return int(text)


def seed_number(text: str) -> int:
    """Return a seed, for the parser of arguments."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def positive_number(text: str) -> int:
    """Return a number of things, for the parser of arguments."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
