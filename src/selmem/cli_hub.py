"""The commands that deal with the Hub: `selmem publish` and `selmem verify`."""

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def add_publish(commands: Any) -> None:
    """Add `selmem publish` to the commands."""
    command = commands.add_parser(
        "publish", help="stage a folder for the Hub; upload it only with --yes (in a checkout)"
    )
    command.add_argument("kind", choices=("model", "dataset", "metric", "space"))
    command.add_argument("path", type=Path, metavar="PATH")
    command.add_argument("repo_id", metavar="REPO_ID")
    command.add_argument("--templates", type=Path, default=Path("hub_cards"), help="card templates")
    command.add_argument("--encoder", help="where a probe's encoder is now (default: by its name)")
    command.add_argument("--yes", action="store_true", help="upload what was staged")
    command.set_defaults(run=_publish, log_level=logging.WARNING)


def _publish(arguments: argparse.Namespace) -> None:
    from selmem.hub import publish, stage

    with TemporaryDirectory(prefix="selmem-") as temporary:
        staged = stage(
            arguments.kind,
            arguments.path,
            arguments.repo_id,
            arguments.templates,
            Path(temporary) / "staged",
            encoder=arguments.encoder,
        )
        print(staged.listing())
        publication = publish(staged, yes=arguments.yes)
    if publication is None:
        print("nothing was uploaded; repeat with --yes to upload these files")
    else:
        print(f"published {publication.url} as {publication.tag} ({publication.commit})")


def add_verify(commands: Any) -> None:
    """Add `selmem verify` to the commands."""
    command = commands.add_parser(
        "verify", help="check files, weights, fingerprints and a known reconstruction"
    )
    command.add_argument("target", metavar="PATH|REPO_ID")
    command.add_argument("--revision", help="branch, tag or commit on the Hub")
    command.add_argument("--encoder", help="where a probe's encoder is (default: by its name)")
    command.set_defaults(run=_verify, log_level=logging.WARNING)


def _verify(arguments: argparse.Namespace) -> None:
    from selmem.hub import verify

    found = verify(arguments.target, revision=arguments.revision, encoder=arguments.encoder)
    print("\n".join([*found.checks, f"{arguments.target} is as published"]))
