#!/usr/bin/python3
"""A second implementation of the waxseal envelope (draft 0), written from docs/spec/envelope.md alone, and a checker
that holds every value of envelope.json against it.

    /usr/bin/python3 verify.py [envelope.json]

Needs Python 3.11 and the package cryptography 38 or later. The part above "The checker" stands for itself.
Comments name the sections of the specification in quotation marks.
"""
from __future__ import annotations

import base64
import hmac
import json
import re
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterable, NoReturn, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

MALFORMED, UNKNOWN_KEY, DECRYPTION_FAILED, SCHEMA = "MALFORMED", "UNKNOWN_KEY", "DECRYPTION_FAILED", "SCHEMA"
Place = Sequence[str | tuple[int, int]]  # labels, and (index, count) of an array's element

class Refused(Exception):
    """The envelope is refused. `code` is one of the specification's error codes; `why` is for the developer only."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code

def malformed(why: str) -> NoReturn:
    raise Refused(MALFORMED, why)

# "Conventions"

def u16(n: int) -> bytes:
    return n.to_bytes(2, "big")

def u32(n: int) -> bytes:
    return n.to_bytes(4, "big")

def unhex(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError(f"not lower-case hexadecimal: {text!r}")
    return data

def utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        malformed("not UTF-8")

# "KDF" and "Keys"

def kdf(key: bytes, label: bytes, context: bytes) -> bytes:
    """SP 800-108r1 4.1, HMAC-SHA-512, 32-bit counter before the fixed input, 512 bits."""
    return KBKDFHMAC(algorithm=hashes.SHA512(), mode=Mode.CounterMode, length=64, rlen=4, llen=4, fixed=None,
                     location=CounterLocation.BeforeFixed, label=label, context=context).derive(key)

def kdf_input(label: bytes, context: bytes) -> bytes:
    """What the HMAC is given, written out as the specification writes it."""
    return bytes.fromhex("00000001") + label + b"\x00" + context + bytes.fromhex("00000200")

@dataclass(frozen=True)
class Keyring:
    keyring_id: bytes
    master_keys: dict[bytes, bytes]

    def __post_init__(self) -> None:
        sizes = {(len(key_id), len(key)) for key_id, key in self.master_keys.items()}
        if len(self.keyring_id) != 16 or sizes != {(15, 32)}:
            raise ValueError("keyring id, key id or master key of another length")

    def subkey(self, key_id: bytes, suite: int) -> bytes:
        """The wrapping subkey. "Decrypt", D2: UNKNOWN_KEY if there is no such master key."""
        if key_id not in self.master_keys:
            raise Refused(UNKNOWN_KEY, key_id.hex())
        info = bytes([1, suite]) + self.keyring_id + key_id
        return kdf(self.master_keys[key_id], b"waxseal/subkey/0", info)[:32]

# "Suites"

def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha-03, section 2.2."""
    s = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] ^= s[x]
            s[z] = ((s[z] << turn) | (s[z] >> (32 - turn))) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])

@dataclass(frozen=True)
class Suite:
    nonce: int
    wrapped: int
    tag: int = 16

SUITES = {1: Suite(nonce=12, wrapped=40), 2: Suite(nonce=24, wrapped=72)}
MOST = 1 << 24  # "Purpose and limits": the plaintext of one sealed value

def aead(suite: int, key: bytes, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
    if suite == 1:
        return AESGCM(key), nonce
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]

def seal(suite: int, key: bytes, aad: bytes, plaintext: bytes, nonce: bytes) -> bytes:
    """SEAL, with the nonce given: only vectors may choose it."""
    if len(plaintext) > MOST or len(nonce) != SUITES[suite].nonce:
        raise ValueError("seal")
    cipher, short = aead(suite, key, nonce)
    return nonce + cipher.encrypt(short, plaintext, aad)

def open_sealed(suite: int, key: bytes, aad: bytes, sealed: bytes) -> bytes:
    """OPEN. Lengths are looked at before anything is cut."""
    size = SUITES[suite].nonce
    if not size + SUITES[suite].tag <= len(sealed) <= size + SUITES[suite].tag + MOST:
        malformed("length of a sealed value")
    cipher, short = aead(suite, key, sealed[:size])
    try:
        return cipher.decrypt(short, sealed[size:], aad)
    except InvalidTag:
        raise Refused(DECRYPTION_FAILED, "D5 (D3 for the wrap of suite 2)") from None

# "Context"

INTEGER = "0|-?[1-9][0-9]*"
CONTEXT_TYPES = {"text": 1, "bytes": 2, "int": 3, "uuid": 4}

def context_value(kind: str, value: str) -> bytes:
    """The value of one entry, from its text: bytes in hexadecimal, a UUID with its hyphens."""
    if kind == "text":
        return value.encode("utf-8")
    if kind == "bytes":
        return unhex(value)
    if kind == "int" and re.fullmatch(INTEGER, value) and len(value) <= 40:
        return value.encode("ascii")
    if kind == "uuid" and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return bytes.fromhex(value.replace("-", ""))
    raise ValueError(f"context value {value!r} of type {kind}")

def encode_context(entries: Iterable[tuple[str, str, str]]) -> bytes:
    """The canonical encoding of (name, type, value) in any order."""
    rows = sorted((name.encode("utf-8"), CONTEXT_TYPES[kind], context_value(kind, value)) for name, kind, value in entries)
    names = {name for name, _, _ in rows}
    if not 1 <= len(rows) <= 16 or len(names) != len(rows) or any(len(value) > 1024 for _, _, value in rows):
        raise ValueError("context")
    if not all(1 <= len(name) <= 64 for name in names):
        raise ValueError("context name")
    return u16(len(rows)) + b"".join(
        u16(len(name)) + name + bytes([kind]) + u32(len(value)) + value for name, kind, value in rows)

# "Header"

KINDS = {"columns": 1, "packed": 2, "cell": 3}

@dataclass(frozen=True)
class Header:
    suite: int
    kind: int
    key_id: bytes
    commitment: bytes
    wrapped: bytes = b""

    def head(self) -> bytes:
        # version, suite, kind, wrap type, flags, reserved
        return bytes([0, self.suite, self.kind, 1, 0, 0]) + self.key_id + self.commitment

    def encode(self) -> bytes:
        return self.head() + self.wrapped

def parse(data: bytes, kind: str, suites: Iterable[int]) -> tuple[Header, bytes]:
    """"Decrypt", D1: the header and what stands behind it."""
    if len(data) < 53:
        malformed("shorter than a head")
    version, suite, kind_byte, wrap_type, flags, reserved = data[:6]
    if version != 0:
        malformed("version")
    if suite not in SUITES or suite not in suites:
        malformed("suite")
    if kind_byte != KINDS[kind]:
        malformed("kind")
    if wrap_type != 1 or flags != 0 or reserved != 0:
        malformed("wrap type, flags or reserved")
    end = 53 + SUITES[suite].wrapped
    least = 0 if kind == "columns" else SUITES[suite].nonce + SUITES[suite].tag
    if len(data) < end + least or (kind == "columns" and len(data) != end):
        malformed("length")
    return Header(suite, kind_byte, data[6:21], data[21:53], data[53:end]), data[end:]

def wrap(keyring: Keyring, header: Header, data_key: bytes, nonce: bytes) -> bytes:
    """"Encrypt", E3. Suite 1 takes no nonce."""
    subkey = keyring.subkey(header.key_id, header.suite)
    if header.suite == 1:
        return aes_key_wrap(subkey, data_key)
    return seal(2, subkey, header.head(), data_key, nonce)

def unwrap(keyring: Keyring, header: Header) -> bytes:
    """"Decrypt", D2 and D3."""
    subkey = keyring.subkey(header.key_id, header.suite)
    try:
        if header.suite == 1:
            data_key = aes_key_unwrap(subkey, header.wrapped)
        else:
            data_key = open_sealed(2, subkey, header.head(), header.wrapped)
    except InvalidUnwrap:
        raise Refused(DECRYPTION_FAILED, "D3") from None
    if len(data_key) != 32:
        raise Refused(DECRYPTION_FAILED, "D3, length")
    return data_key

def derivation_context(suite: int, kind: int, context: bytes) -> bytes:
    """"Derivation": version, suite, kind, flags, reserved; then the canonical context."""
    return bytes([0, suite, kind, 0, 0]) + context

def derive(header: Header, data_key: bytes, context: bytes) -> bytes:
    """Record key and commitment, 32 bytes each."""
    return kdf(data_key, b"waxseal/record/0", derivation_context(header.suite, header.kind, context))

def record_key(keyring: Keyring, header: Header, context: bytes) -> bytes:
    """"Decrypt", D2 to D4: the record key, after the commitment was compared."""
    derived = derive(header, unwrap(keyring, header), context)
    if not hmac.compare_digest(derived[32:], header.commitment):
        raise Refused(DECRYPTION_FAILED, "D4")
    return derived[:32]

def rewrap(keyring: Keyring, header: Header, key_id: bytes, nonce: bytes) -> Header:
    """"Rewrap": key id and wrapped key change, nothing else."""
    moved = replace(header, key_id=key_id)
    return replace(moved, wrapped=wrap(keyring, moved, unwrap(keyring, header), nonce))

# "Sealed values and their place"

def place(kind: int, path: Place) -> bytes:
    """The AAD of a place."""
    aad = bytes([kind])
    for part in path:
        if isinstance(part, str):
            label = part.encode("utf-8")
            if not 1 <= len(label) <= 255:
                raise ValueError("label")
            aad += u16(len(label)) + label
        else:
            index, count = part
            if not 0 <= index < count:
                raise ValueError("array place")
            aad += b"\xff\xff" + u32(index) + u32(count)
    return aad

def pack(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    rows = sorted(entries)
    if len({label for label, _ in rows}) != len(rows) or not all(1 <= len(label) <= 255 for label, _ in rows):
        raise ValueError("labels")
    return b"".join(u16(len(label)) + label + u32(len(plaintext)) + plaintext for label, plaintext in rows)

def unpack(packed: bytes) -> list[tuple[bytes, bytes]]:
    rows: list[tuple[bytes, bytes]] = []
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(packed):
            malformed("packed entry cut off")
        at += size
        return packed[at - size:at]

    while at < len(packed):
        label = take(int.from_bytes(take(2), "big"))
        if not 1 <= len(label) <= 255 or (rows and label <= rows[-1][0]):
            malformed("packed label")
        rows.append((label, take(int.from_bytes(take(4), "big"))))
    return rows

# "Plaintext"

TAGS = {"boolean": (2, 3), "text": (4,), "bytes": (5,), "number": (6,), "int": (6,), "bigint": (7,), "date": (8,), "json": (9,)}
LATEST = 8_640_000_000_000_000
Value = None | bool | str | bytes | float | int

def pad(plaintext: bytes, size: int) -> bytes:
    """To `size` bytes in all, the type tag included."""
    if size <= len(plaintext):
        raise ValueError("no room for the padding")
    return (bytes([plaintext[0] + 0x80]) + plaintext[1:] + b"\x80").ljust(size, b"\x00")

def padded_size(value_bytes: int, padding: dict[str, int]) -> int:
    """"Plaintext": a fixed size, or value and mark rounded up to a multiple."""
    if "to" in padding:
        return 2 + padding["to"]
    return 1 + -(-(value_bytes + 1) // padding["multiple"]) * padding["multiple"]

def encode_value(kind: str, value: Any, padding: dict[str, int] | None = None) -> bytes:
    """JSON is given as its text, a date in milliseconds."""
    if kind not in TAGS:
        raise ValueError(f"type {kind!r}")
    plain = b"\x01" if value is None else encode_unpadded(kind, value)
    room = 8 if value is None and kind in ("number", "int", "date") else len(plain) - 1
    if padding:
        return pad(plain, padded_size(room, padding))
    return plain if room == len(plain) - 1 else pad(plain, 1 + room)

def encode_unpadded(kind: str, value: Any) -> bytes:
    if kind == "boolean":
        return b"\x03" if value else b"\x02"
    tag = bytes(TAGS[kind])
    if kind in ("text", "json"):
        return tag + value.encode("utf-8")
    if kind == "bytes":
        return tag + value
    if kind in ("number", "int"):
        return tag + (bytes.fromhex("7ff8000000000000") if value != value else struct.pack(">d", value))
    if kind == "date":
        return tag + value.to_bytes(8, "big", signed=True)
    return tag + value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)

def decode_value(kind: str, plaintext: bytes) -> Value:
    if not plaintext:
        malformed("no type tag")
    tag, value = plaintext[0] & 0x7F, plaintext[1:]
    if plaintext[0] & 0x80:
        value = value.rstrip(b"\x00")
        if not value.endswith(b"\x80"):
            malformed("padding")
        value = value[:-1]
    if not 1 <= tag <= 9:
        malformed("unknown tag")
    if tag != 1 and tag not in TAGS[kind]:
        raise Refused(SCHEMA, f"tag {tag} of a field declared as {kind}")
    if (tag <= 3 and value) or (tag in (6, 8) and len(value) != 8):
        malformed("length of a value")
    if tag == 1:
        return None
    if tag <= 3:
        return tag == 3
    if tag == 4:
        return utf8(value)
    if tag == 5:
        return value
    if tag == 6:
        number: float = struct.unpack(">d", value)[0]
        if number != number and value.hex() != "7ff8000000000000":
            malformed("another NaN")
        if kind == "number":
            return number
        if not abs(number) < 2 ** 53 or number != int(number):
            raise Refused(SCHEMA, "a number of a field declared as int")
        return int(number)
    if tag == 9:
        text = utf8(value)
        try:
            if json.loads(text, parse_constant=malformed, parse_int=str, parse_float=str) is None:
                malformed("null as JSON")
        except (ValueError, RecursionError):
            malformed("not JSON")
        return text
    whole = int.from_bytes(value, "big", signed=True)
    if tag == 8 and abs(whole) > LATEST:
        malformed("date out of range")
    if tag == 7 and not (1 <= len(value) <= 512 and encode_value("bigint", whole)[1:] == value):
        malformed("bigint longer than it need be")
    return whole

# "Text form"

PREFIXES = {"columns": "wxh:", "packed": "wxp:", "cell": "wxc:", "field": "wxf:"}

def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")

def to_text(kind: str, data: bytes) -> str:
    return PREFIXES[kind] + base64url(data)

def from_text(kind: str, text: str) -> bytes:
    body = text[4:]
    if text[:4] != PREFIXES[kind] or not re.fullmatch("[A-Za-z0-9_-]*", body) or len(body) % 4 == 1:
        malformed("text form")
    data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if base64url(data) != body:
        malformed("trailing bits")
    return data

# The checker. Layout of the file: "Vectors".

NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?(e[+-][1-9][0-9]*)?|NaN|-?Infinity"  # as JavaScript writes it

def typed(kind: str, value: Any) -> Value:
    """A value as the vectors write it."""
    if value is None:
        return None
    if kind == "bytes":
        return unhex(value)
    if kind in ("int", "bigint", "number"):
        if not re.fullmatch(NUMBER if kind == "number" else INTEGER, value):
            raise ValueError(f"{kind} written as {value!r}")
        return float(value) if kind == "number" else int(value)
    return value

def path_of(path: Sequence[Any]) -> Place:
    return [part if isinstance(part, str) else (part[0], part[1]) for part in path]

class Checker:
    def __init__(self) -> None:
        self.mismatches: list[str] = []
        self.name = ""

    def equal(self, what: str, got: Any, expected: Any) -> None:
        if type(got) is not type(expected) or repr(got) != repr(expected):  # by repr: NaN is NaN, and -0 is not 0
            show = [x.hex() if isinstance(x, bytes) else repr(x) for x in (got, expected)]
            self.mismatches.append(f"{self.name}: {what}: computed {show[0]}, the vectors say {show[1]}")

    def keys(self, what: str, row: dict[str, Any], wanted: str, optional: str = "") -> None:
        """A key that is not known here would be a value that is not checked."""
        self.equal(f"keys of {what}", sorted(set(row) - set(optional.split())), sorted(wanted.split()))

    def run(self, name: str, check: Callable[[], None]) -> None:
        self.name = name
        try:
            check()
        except Exception as error:  # whatever is wrong with one vector, the others are still checked
            self.mismatches.append(f"{name}: {type(error).__name__}: {error}")

    def context(self, context: dict[str, Any]) -> bytes:
        self.keys("context", context, "entries encoded")
        for entry in context["entries"]:
            self.keys("context entry", entry, "name type value")
        encoded = encode_context((entry["name"], entry["type"], entry["value"]) for entry in context["entries"])
        self.equal("canonical context", encoded, unhex(context["encoded"]))
        return encoded

    def plaintext(self, what: str, row: dict[str, Any]) -> bytes:
        """Value to plaintext and back."""
        plaintext, value = unhex(row["plaintext"]), typed(row["type"], row["value"])
        self.equal(f"{what}: plaintext", encode_value(row["type"], value, row.get("pad")), plaintext)
        self.equal(f"{what}: value", decode_value(row["type"], plaintext), value)
        return plaintext

    def sealed(self, what: str, suite: int, keys: list[bytes], aad: bytes, plaintext: bytes, sealed: bytes) -> None:
        """`keys` are the record keys as every header of the vector gives them."""
        for key in keys:
            self.equal(f"{what}: opened", open_sealed(suite, key, aad, sealed), plaintext)
            self.equal(f"{what}: sealed", seal(suite, key, aad, plaintext, sealed[:SUITES[suite].nonce]), sealed)

    def field(self, suite: int, kind: int, keys: list[bytes], row: dict[str, Any]) -> None:
        self.keys("field", row, "path aad type value plaintext sealed" + (" text" if kind == 1 else ""), "pad")
        what, aad, sealed = f"field {row['path']}", place(kind, path_of(row["path"])), unhex(row["sealed"])
        self.equal(f"{what}: AAD", aad, unhex(row["aad"]))
        self.sealed(what, suite, keys, aad, self.plaintext(what, row), sealed)
        if kind == 1:
            self.equal(f"{what}: text", to_text("field", sealed), row["text"])
            self.equal(f"{what}: from text", from_text("field", row["text"]), sealed)

    def vector(self, keyring: Keyring, row: dict[str, Any]) -> None:
        kind, suite = row["kind"], row["suite"]
        own = {"columns": "header_text fields", "packed": "entries plaintext aad blob blob_text",
               "cell": "field blob blob_text"}
        self.keys("vector", row, "name kind suite context key_id data_key kdf_input derived header " + own[kind],
                  "rewrapped patched" if kind == "columns" else "rewrapped")
        context, data_key, given = self.context(row["context"]), unhex(row["data_key"]), unhex(row["header"])

        # E2, "KDF": the input, and HMAC-SHA-512 by hand against the library's KDF
        written = kdf_input(b"waxseal/record/0", derivation_context(suite, KINDS[kind], context))
        self.equal("KDF input", written, unhex(row["kdf_input"]))
        self.equal("derived, by hand", hmac.digest(data_key, written, "sha512"), unhex(row["derived"]))
        built = Header(suite, KINDS[kind], unhex(row["key_id"]), unhex(row["derived"])[32:])
        self.equal("derived", derive(built, data_key, context), unhex(row["derived"]))

        # E3: the header built from its parts, and read
        built = replace(built, wrapped=wrap(keyring, built, data_key, given[53:77]))
        self.equal("header", built.encode(), given)
        blob = given if kind == "columns" else unhex(row["blob"])
        header, behind = parse(blob, kind, [suite])
        self.equal("header read", header, built)
        self.equal("data key", unwrap(keyring, header), data_key)
        keys = [record_key(keyring, header, context)]
        self.equal("record key", keys[0], unhex(row["derived"])[:32])

        # "Text form", and the parts that SQL cuts out of it
        text = row["header_text" if kind == "columns" else "blob_text"]
        self.equal("text", to_text(kind, blob), text)
        self.equal("from text", from_text(kind, text), blob)
        self.equal("key id cut from the text", text[12:32], base64url(header.key_id))
        self.equal("commitment cut from the text", text[32:72], base64url(header.commitment[:30]))

        # "Rewrap": all that is sealed must open with either header
        if "rewrapped" in row:
            self.keys("rewrapped", row["rewrapped"], "key_id header")
            other = unhex(row["rewrapped"]["header"])
            moved = rewrap(keyring, header, unhex(row["rewrapped"]["key_id"]), other[53:77])
            self.equal("rewrapped header", moved.encode(), other)
            again, after = parse(other + behind, kind, [suite])
            self.equal("behind the rewrapped header", after, behind)
            keys.append(record_key(keyring, again, context))

        # E4, D5
        if kind == "columns":
            for field in row["fields"] + row.get("patched", []):
                self.field(suite, 1, keys, field)
        elif kind == "cell":
            self.field(suite, 3, keys, row["field"])
            self.equal("blob", given + unhex(row["field"]["sealed"]), blob)
        else:
            entries = []
            for entry in row["entries"]:
                self.keys("entry", entry, "label type value plaintext", "pad")
                entries.append((entry["label"].encode("utf-8"), self.plaintext(f"entry {entry['label']}", entry)))
            plaintext = unhex(row["plaintext"])
            self.equal("packed plaintext", pack(reversed(entries)), plaintext)
            self.equal("entries and their order", unpack(plaintext), entries)
            self.equal("AAD", place(2, []), unhex(row["aad"]))
            self.sealed("blob", suite, keys, place(2, []), plaintext, behind)

    def failure(self, keyring: Keyring, row: dict[str, Any]) -> None:
        kind = row["kind"]
        if "text" in row:
            self.keys("failure", row, "name kind text code")
        else:
            own = {"columns": "header field", "packed": "blob", "cell": "blob field"}
            self.keys("failure", row, "name kind suite_allowed context code " + own[kind])
            if kind != "packed":
                self.keys("field", row["field"], "path sealed" if kind == "columns" else "path", "type")
        context = self.context(row["context"]) if "context" in row else b""
        try:
            if "text" in row:
                from_text(kind, row["text"])
            else:
                header, sealed = parse(unhex(row["header" if kind == "columns" else "blob"]), kind, row["suite_allowed"])
                if kind == "columns":
                    sealed = unhex(row["field"]["sealed"])
                path = row["field"]["path"] if "field" in row else []
                aad = place(KINDS[kind], path_of(path))
                plaintext = open_sealed(header.suite, record_key(keyring, header, context), aad, sealed)
                if kind == "packed":
                    unpack(plaintext)
                elif "type" in row["field"]:  # for failures of a plaintext
                    decode_value(row["field"]["type"], plaintext)
        except Refused as refused:
            self.equal("code", refused.code, row["code"])
        else:
            self.mismatches.append(f"{self.name}: accepted, the vectors say {row['code']}")

    def file(self, data: dict[str, Any]) -> None:
        self.keys("the file", data, "format keyring_id master_keys vectors failures")
        self.equal("format", data["format"], "waxseal envelope vectors, draft 0")
        keyring = Keyring(unhex(data["keyring_id"]), {unhex(key["id"]): unhex(key["key"]) for key in data["master_keys"]})
        for key in data["master_keys"]:
            self.keys("master key", key, "id key subkeys")
            self.equal("subkeys", {str(suite): keyring.subkey(unhex(key["id"]), suite).hex() for suite in SUITES}, key["subkeys"])
        for row in data["vectors"]:
            self.run(row["name"], lambda: self.vector(keyring, row))
        for row in data["failures"]:
            self.run(row["name"], lambda: self.failure(keyring, row))
        self.name = "the file"
        self.equal("suites and kinds with a vector", sorted({(row["suite"], row["kind"]) for row in data["vectors"]}),
                   sorted((suite, kind) for suite in SUITES for kind in KINDS))
        self.equal("codes with a failure", sorted({row["code"] for row in data["failures"]} - {SCHEMA}),
                   sorted([MALFORMED, UNKNOWN_KEY, DECRYPTION_FAILED]))

    def published(self) -> None:
        """draft-irtf-cfrg-xchacha-03: section 2.2.1 (HChaCha20) and appendix A.3.1 (the AEAD's tag)."""
        self.equal("HChaCha20", hchacha20(bytes(range(32)), unhex("000000090000004a0000000031415927")),
                   unhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"))
        text = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                b"sunscreen would be it.")
        sealed = seal(2, bytes(range(0x80, 0xA0)), unhex("50515253c0c1c2c3c4c5c6c7"), text, bytes(range(0x40, 0x58)))
        self.equal("XChaCha20-Poly1305", sealed[-16:], unhex("c0875924c1c7987947deafd8780acf49"))

def main(arguments: list[str]) -> int:
    path = Path(arguments[0]) if arguments else Path(__file__).resolve().parent / "envelope.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    checker = Checker()
    checker.run("published vectors", checker.published)
    checker.run("the file", lambda: checker.file(data))
    for mismatch in checker.mismatches:
        print(mismatch)
    if checker.mismatches:
        print(f"{path.name}: {len(checker.mismatches)} mismatches")
        return 1
    print(f"{path.name}: {len(data['vectors'])} vectors, {len(data['failures'])} failures: all as specified")
    return 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
