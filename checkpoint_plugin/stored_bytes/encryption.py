"""Encryption at rest: a data key and an address key a run, wrapped by a master key that the store never sees.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits for everything that is stored, and a keyed BLAKE2b for the
addresses of values, so that equal values of two runs, or a guess, cannot be recognised by their digest. The extra `crypto`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Final

from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.errors import KeyMissing, KeyUnusable
from checkpoint_plugin.stored_bytes.digests import digest_of, text_bytes
from checkpoint_plugin.stored_bytes.sealing import SEALED_TEXT

__all__ = ["Cipher", "KeyRing", "WrappedKeys"]

VARIABLE: Final = "WORKFLOW_CHECKPOINT_KEY"
PROVIDER_VARIABLE: Final = "WORKFLOW_CHECKPOINT_KEY_PROVIDER"
PROVIDERS: Final = "workflow_checkpoint.keys"
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
BINDING: Final = b"keys that bind"
"""What the keys of a run are wrapped as, whose checkpoints are bound by them."""
EARLIER: Final = b"keys"
"""The same of runs that were made before that was so; without the master key none becomes the other."""
CHECKPOINT: Final = b"checkpoint"
"""What is bound by the address key, and so is never an address."""


@dataclass(frozen=True, slots=True)
class WrappedKeys:
    """The keys of a run as they are stored.

    Args:
        key_id: of the master key that wrapped them.
        wrapped: nonce and ciphertext.
    """

    key_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Master keys: the first wraps, every one unwraps.

    Args:
        keys: 32 bytes each.
    """

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def from_environment(cls, provider: str | None = None) -> KeyRing | None:
        """The keys of a provider, those of `WORKFLOW_CHECKPOINT_KEY`, or of the provider in `WORKFLOW_CHECKPOINT_KEY_PROVIDER`.

        Args:
            provider: name of an entry point in the group `workflow_checkpoint.keys`, which is called without arguments and
                gives text like that of the variable; `None` for what the variables say.

        Returns:
            The keys; `None` when nothing gives any.

        Raises:
            KeyUnusable: what is given is no key, or the provider fails.
            KeyMissing: there is no such provider.
        """
        if provider is None:
            text = os.environ.get(VARIABLE, "")
            if text.strip():
                return cls.from_text(text, VARIABLE)
            provider = os.environ.get(PROVIDER_VARIABLE)
            if not provider:
                return None
        found = list(entry_points(group=PROVIDERS, name=provider))
        if not found:
            raise KeyMissing(
                f"no installed package provides keys under the name {provider!r}. Install it, or set {VARIABLE} instead."
            )
        where = f"the key provider {provider!r}"
        try:
            text = found[0].load()()
        except Exception as error:  # it is anybody's function; what it says may hold a secret, so only its kind is told
            raise KeyUnusable(f"{where} raised {type(error).__name__}. Mend it, or set {VARIABLE} instead.") from error
        if not isinstance(text, str):
            raise KeyUnusable(f"{where} gave {type(text).__name__}, not text. Let it give keys as they stand in {VARIABLE}.")
        return cls.from_text(text, where)

    @classmethod
    def from_text(cls, text: str, where: str) -> KeyRing:
        """Keys from text: 32 bytes each in base64 or hexadecimal, separated by commas or white space; the newest first.

        Raises:
            KeyUnusable: it is something else. The text itself is not told.
        """
        keys = tuple(_read_key(part, where) for part in text.replace(",", " ").split())
        if not keys:
            raise KeyUnusable(f"{where} holds no key. {_MEND}")
        return cls(keys)

    def make(self, run_id: str) -> tuple[Cipher, WrappedKeys]:
        """New keys for a run."""
        secret = os.urandom(2 * KEY_SIZE)
        return Cipher(run_id, secret), self._wrap(run_id, secret, BINDING)

    def open(self, run_id: str, keys: WrappedKeys) -> Cipher:
        """The keys of a run.

        Raises:
            KeyMissing: no key of the ring has wrapped them.
            KeyUnusable: they are not what was written.
        """
        secret, kind = self._unwrap(run_id, keys)
        return Cipher(run_id, secret, binds=kind == BINDING)

    def rewrap(self, run_id: str, keys: WrappedKeys) -> WrappedKeys | None:
        """The keys of a run, wrapped by the first master key; `None` when they are already.

        Raises:
            KeyMissing: no key of the ring has wrapped them.
            KeyUnusable: they are not what was written.
        """
        if keys.key_id == key_id(self.keys[0]):
            return None
        return self._wrap(run_id, *self._unwrap(run_id, keys))

    def _wrap(self, run_id: str, secret: bytes, kind: bytes) -> WrappedKeys:
        nonce, name = os.urandom(NONCE_SIZE), key_id(self.keys[0])
        return WrappedKeys(name, nonce + _aes(self.keys[0]).encrypt(nonce, secret, _bound(kind, run_id, name.encode())))

    def _unwrap(self, run_id: str, keys: WrappedKeys) -> tuple[bytes, bytes]:
        """The keys, and what they were wrapped as."""
        for key in self.keys:
            if key_id(key) == keys.key_id:
                break
        else:
            had = ", ".join(key_id(key) for key in self.keys)
            raise KeyMissing(
                f"run {run_id!r} is encrypted with the master key {keys.key_id}, and the one given is {had}. "
                f"Put the old key into {VARIABLE}, too, behind the new one."
            )
        nonce, sealed = keys.wrapped[:NONCE_SIZE], keys.wrapped[NONCE_SIZE:]
        for kind in (BINDING, EARLIER):
            with suppress(_invalid_tag(), ValueError):
                secret: bytes = _aes(key).decrypt(nonce, sealed, _bound(kind, run_id, keys.key_id.encode()))
                if len(secret) == 2 * KEY_SIZE:
                    return secret, kind
        raise KeyUnusable(f"the keys of run {run_id!r} are damaged. Restore the database from a copy.")


class Cipher:
    """Seals the bytes of one run; see `sealing.Seal`.

    Args:
        run_id: the run.
        secret: the data key and the address key.
        binds: off for a run whose checkpoints are bound by digests that anybody can make.
    """

    def __init__(self, run_id: str, secret: bytes, *, binds: bool = True) -> None:
        self._run_id = run_id
        self._binds = binds
        self._aes = _aes(secret[:KEY_SIZE])
        self._address_key = secret[KEY_SIZE:]

    def address(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=32, key=self._address_key).digest()

    def bind(self, data: bytes) -> bytes:
        if not self._binds:
            return digest_of(data)
        return hashlib.blake2b(data, digest_size=32, key=self._address_key, person=CHECKPOINT).digest()

    def seal(self, data: bytes, *where: bytes) -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        sealed: bytes = self._aes.encrypt(nonce, data, _bound(b"data", self._run_id, *where))
        return nonce + sealed

    def open(self, data: bytes, *where: bytes) -> bytes:
        try:
            opened: bytes = self._aes.decrypt(data[:NONCE_SIZE], data[NONCE_SIZE:], _bound(b"data", self._run_id, *where))
        except (_invalid_tag(), ValueError) as error:
            raise MalformedValue("it was not written with this run's key, for this place") from error
        return opened

    def seal_text(self, text: str) -> str:
        return SEALED_TEXT + base64.b64encode(self.seal(text_bytes(text), b"text")).decode()

    def open_text(self, text: str) -> str:
        if not text.startswith(SEALED_TEXT):
            raise MalformedValue("it is not encrypted, and all of this run is")
        try:
            sealed = base64.b64decode(text[len(SEALED_TEXT) :], validate=True)
        except ValueError as error:  # also where it is not of ASCII
            raise MalformedValue("it is not what was written") from error
        return self.open(sealed, b"text").decode("utf-8", "surrogatepass")


def key_id(key: bytes) -> str:
    """A name for a master key that tells nothing of it."""
    return digest_of(b"workflow-checkpoint master key", key).hex()[:16]


def _bound(kind: bytes, run_id: str, *where: bytes) -> bytes:
    return digest_of(kind, text_bytes(run_id), *where)


def _read_key(text: str, where: str) -> bytes:
    for read in (bytes.fromhex, _base64):
        try:
            key = read(text)
        except ValueError:
            continue
        if len(key) == KEY_SIZE:
            return key
    raise KeyUnusable(f"{where} holds something that is not a key of {KEY_SIZE} bytes. {_MEND}")


def _base64(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)


_MEND: Final = 'Make one with: python -c "import os, base64; print(base64.b64encode(os.urandom(32)).decode())"'


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise KeyMissing("encrypted runs need the extra crypto. Install it: pip install 'workflow-checkpoint[crypto]'") from error
    return AESGCM(key)


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
