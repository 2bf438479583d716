"""What single tokens are, byte for byte: a token may be less than a character."""

import functools
import re
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How vocabularies of SentencePiece write a byte that is part of a character."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How they write a space."""
REMEMBERED = 2**16
"""Tokens whose bytes are remembered."""


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: a printable one as itself, others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF = MappingProxyType(_byte_alphabet())


class Vocabulary:
    """The tokens of one tokenizer as bytes and as what people read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items()}
        self._byte_level = tokenizer.is_fast and "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)
        self.bytes_of = functools.lru_cache(maxsize=REMEMBERED)(self._bytes_of)

    def label(self, token: int) -> str:
        r"""The token's text; one that is no whole characters is spelt ``bytes:\xe2\x80``."""
        written = self.bytes_of(token)
        try:
            return written.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)

    def _bytes_of(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        if self._byte_level and all(letter in BYTE_OF for letter in piece):
            return bytes(BYTE_OF[letter] for letter in piece)
        if found := BYTE.fullmatch(piece):
            return bytes([int(found[1], 16)])
        return piece.replace(SPACE, " ").encode()
