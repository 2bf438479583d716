"""``fettle export``: a checkpoint as other programs take it, in a folder or on a hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fettle.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from fettle.deploy.hub import Parcel


def export(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, a checkpoint, or a model.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    merged: Annotated[
        bool, typer.Option("--merged", help="A whole model, its adapter added to it: the default.")
    ] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="The adapter alone, in PEFT's layout.")] = False,
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of merged weights.")] = "float32",
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="A repository of the hub to send it to.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see the repository, if it is new.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
) -> None:
    """Write a model with its tokenizer, the hash of every file and where it comes from; send it to a hub if asked."""
    if merged and adapter:
        raise ConfigError("--merged and --adapter are two forms of one model: choose one")
    if adapter and precision != "float32":
        raise ConfigError("--precision is of merged weights, and an adapter is left as it is: leave one of them out")
    if push is None and (public or dry_run):
        raise ConfigError("--public and --dry-run are about what is sent: name a repository with --push OWNER/NAME")

    from fettle.cli.models import weights_of
    from fettle.client.kept import kept
    from fettle.deploy.export import export as exported
    from fettle.deploy.hub import Parcel

    parcel = None if push is None else Parcel(to, push, public)
    weights = weights_of(model)
    if kept(weights) is not None:
        raise ModelError(f"{weights} is at a service: download it first, as docs/client.md shows, and export that")
    origin = exported(weights, to, form="adapter" if adapter else "merged", precision=precision)
    print(f"{origin['form']}, {_where(origin)}: {to}")
    if parcel is not None and dry_run:
        _list(parcel)
    elif parcel is not None:
        print(f"sent: {parcel.sent()}")


def _where(origin: dict[str, object]) -> str:
    """In words, what an export is of."""
    parts = [f"run {origin['run']}"] if "run" in origin else [str(origin["source"])]
    if "step" in origin:
        parts.append(f"step {origin['step']}")
    if "base_model" in origin:
        parts.append(f"base model {origin['base_model']}")
    return ", ".join(parts)


def _list(parcel: "Parcel") -> None:
    kind = "public" if parcel.public else "private"
    print(f"a dry run, and nothing is sent; to {parcel.repository}, {kind} if it is new, would go:")
    for name, size in parcel.files():
        print(f"{size:14,}  {name}")
