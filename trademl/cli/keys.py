"""`trademl keys`: the pair that signs revisions here, and the public keys whose signatures count."""

from typing import Annotated

import typer

from trademl.cli import common

app = typer.Typer(no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


@app.callback()
def _keys() -> None:
    """Sign what is stored here, and say whose signatures count."""


@app.command()
def new(json: Json = False) -> None:
    """Make the pair that signs every revision from now on; the public key is printed for the bot's configuration."""
    folder = _folder()
    public = folder.create()
    _say(
        folder,
        json,
        f"key {public.name} signs from now on; what was stored before is unsigned, and a retrain makes a signed one",
    )


@app.command()
def show(json: Json = False) -> None:
    """The public keys that count here, and which of them signs. The private key is never shown."""
    folder = _folder()
    signer = folder.signer()
    _say(
        folder,
        json,
        f"key {signer.name} signs here" if signer else "no key signs here: revisions stay unsigned; see `trademl keys new`",
    )


@app.command()
def rotate(
    finish: Annotated[bool, typer.Option("--finish", help="end a rotation: only the newest key counts from now on")] = False,
    json: Json = False,
) -> None:
    """Replace the key that signs; the one before counts until `rotate --finish`."""
    folder = _folder()
    if finish:
        dropped = ", ".join(key.name for key in folder.finish())
        sentence = f"revisions signed by key {dropped} are refused from now on" if dropped else "only one key counted already"
    else:
        public = folder.rotate()
        sentence = f"key {public.name} signs from now on; pin both in the bot, retrain, then `trademl keys rotate --finish`"
    _say(folder, json, sentence)


def _folder():
    from trademl.settings import load_settings
    from trademl.ship.signing import key_folder

    return key_folder(load_settings().paths.keys)


def _say(folder, json: bool, sentence: str) -> None:
    pinned, signer = folder.trust().pinned, folder.signer()
    keys = [{"key": key.name, "public": str(key), "signs": key == signer} for key in pinned]
    if json:
        return common.emit({"folder": str(folder.path), "keys": keys, "message": sentence})
    print(f"{folder.path}: {sentence}")
    return common.table([(one["key"], one["public"], "signs" if one["signs"] else "counts") for one in keys])
