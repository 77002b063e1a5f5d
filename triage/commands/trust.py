"""`triage models keygen`, `sign` and `approve`: who answers for a package, and for its code."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from triage.commands.console import out
from triage.commands.store import opened_store
from triage.settings import load_settings


@click.command()
@click.argument("stem", type=click.Path(path_type=Path))
@click.option("--with-password", is_flag=True, help="Ask for a password for the private key.")
def keygen(stem: Path, *, with_password: bool) -> None:
    """Make a pair of keys to sign packages with: STEM.key and STEM.pub.

    The private key stays with who signs; the public one is named in trust.public_keys.
    """
    from triage.models.signatures import make_keys

    pair = make_keys(stem, _password(confirm=True) if with_password else "")
    out.print(f"keep to yourself: {pair.private_key}", highlight=False)
    out.print(
        f'give away: {pair.public_key}; in triage.toml: public_keys = [{{name = "{stem.name}", '
        f'path = "{pair.public_key}"}}] in the section trust',
        highlight=False,
        markup=False,
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The private key.",
)
@click.option("--with-password", is_flag=True, help="Ask for the password of the key.")
def sign(folder: Path, *, key: Path, with_password: bool) -> None:
    """Sign all files of the package in FOLDER; the signature is its model.sig."""
    from triage.models.signatures import sign_package

    signature = sign_package(folder, key, _password() if with_password else "")
    out.print(f"signed: {signature}", highlight=False)


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--who", default="", help="Who takes the responsibility.")
@click.option("--reason", default="", help="Why the code may run, such as who read it.")
def approve(name: str, version: str, *, who: str, reason: str) -> None:
    """Let the code in the package of NAME VERSION run; without --who, only show it."""
    from triage.models.code import code_in
    from triage.models.registry import find_package
    from triage.store.code_approvals import approve_code

    with opened_store(load_settings()) as store, store.transaction() as session:
        package = find_package(session, name, version)
        code = code_in(package)
        for found in code:
            out.print(f"  {found.in_words()}", highlight=False, markup=False)
        if not code:
            out.print(f"{package.manifest.identity} holds no code; there is nothing to approve")
        elif not who and not reason:
            out.print("approve it with --who and --reason, once you have read it")
        elif approve_code(session, package.sha256, who=who, reason=reason, now=datetime.now(UTC)):
            out.print(f"{package.manifest.identity} may run from now on")
        else:
            out.print(f"{package.manifest.identity} was approved before")


def _password(*, confirm: bool = False) -> str:
    # Asked for, because what is written on a command line everybody on the machine can read.
    asked = click.prompt("password", hide_input=True, confirmation_prompt=confirm)
    return str(asked)
