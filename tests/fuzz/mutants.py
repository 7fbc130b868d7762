"""Damaged files: each a function of a seed, a number and the whole files that it is made of."""

import json
import random
import struct
import zlib

NASTY_INTEGERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**62)
NASTY_VALUES = (
    None, True, 0, -1, 0.5, 1e30, -1e30, 10**30, float("nan"), float("inf"), "", "universal", "é",
    [], {}, [[]], [0, 0], [0.5, 2], {"a": 1},
)  # fmt: skip
HEAD = 400
"""Bytes in which most of what a header says stands."""


def damaged(whole: list[bytes], chance: random.Random) -> bytes:
    """One of the files with one to four changes of bytes."""
    content = bytearray(chance.choice(whole))
    for _ in range(chance.randint(1, 4)):
        change = chance.choice((_flip, _integer, _integer, _digits, _cut, _drop, _repeat, _splice))
        change(content, chance, whole)
    return bytes(content)


def _place(content: bytearray, chance: random.Random) -> int:
    return chance.randrange(min(len(content), chance.choice((HEAD, len(content)))) or 1)


def _flip(content, chance, whole):
    for _ in range(chance.randint(1, 8)):
        if content:
            content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _integer(content, chance, whole):
    layout = chance.choice("BHIQ")
    number = chance.choice((*NASTY_INTEGERS, chance.getrandbits(64)))
    number &= (1 << 8 * struct.calcsize(layout)) - 1
    start, packed = _place(content, chance), struct.pack(chance.choice("<>") + layout, number)
    content[start : start + len(packed)] = packed


def _digits(content, chance, whole):
    places = [place for place, byte in enumerate(content[:5000]) if chr(byte).isdigit()]
    if places:
        content[chance.choice(places)] = ord(chance.choice("0123456789-.eE,"))


def _cut(content, chance, whole):
    del content[_place(content, chance) :]


def _drop(content, chance, whole):
    start = _place(content, chance)
    del content[start : start + chance.choice((1, 2, 4, 12, 100, 1000))]


def _repeat(content, chance, whole):
    start, length = _place(content, chance), chance.choice((1, 4, 12, 100, 1000))
    content[start:start] = content[start : start + length] * chance.choice((1, 2, 30))


def _splice(content, chance, whole):
    other = chance.choice(whole)
    start = _place(content, chance)
    length = chance.choice((4, 30, 300))
    content[start : start + length] = other[start : start + length]


# ---------------------------------------------------------------------- files that check themselves


def with_png_sums(content: bytes) -> bytes:
    """A PNG file whose chunks have the right checksums, so that more than these is looked at."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    result, start = content[:8], 8
    while len(content) >= start + 12:
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 8 + length
        chunk = content[start:end]
        result += chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
        start = end + 4
    return result + content[start:]


def with_tar_sums(content: bytes) -> bytes:
    """A tar file with the right checksum in whatever looks like a header."""
    blocks = bytearray(content)
    for start in range(0, len(blocks) - 511, 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


# ------------------------------------------------------------------------------------- safetensors


def damaged_tensors(whole: list[bytes], chance: random.Random) -> bytes:
    """One of some safetensors files, damaged in its bytes or in what its header says."""
    if chance.random() < 0.2:
        return damaged(whole, chance)
    content = chance.choice(whole)
    (length,) = struct.unpack_from("<Q", content)
    header, body = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    for _ in range(chance.randint(1, 2)):
        chance.choice((_text, _text, _tensor, _numbers))(header, body, chance)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


def _text(header, body, chance):
    """Another value somewhere in the header's texts, most of which are JSON themselves."""
    texts = header.get("__metadata__")
    if not texts:
        return
    key = chance.choice(sorted(texts.keys() - {"format"}) or ["format"])
    try:
        texts[key] = json.dumps(_changed(json.loads(texts[key]), chance))
    except ValueError:
        texts[key] = chance.choice(("", "x", "photostyle", "-1", "1e9"))
    if chance.random() < 0.1:
        del texts[key]


def _changed(value, chance):
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        action = chance.randrange(6)
        if action == 0:
            return {name: part for name, part in value.items() if name != key}
        if action == 1:
            return value | {chance.choice(("a", "style_mean", "kind")): chance.choice(NASTY_VALUES)}
        return value | {key: _changed(value[key], chance)}
    return chance.choice(NASTY_VALUES)


def _tensor(header, body, chance):
    """A tensor less, or under another name, of another type or shape."""
    names = sorted(header.keys() - {"__metadata__"})
    if not names:
        return
    name = chance.choice(names)
    action = chance.randrange(4)
    if action == 0:
        header[f"{name}x"] = header.pop(name)
    elif action == 1:
        header[name]["dtype"] = chance.choice(("F16", "BF16", "I16", "U16", "F32", "I32", "F64"))
    elif action == 2:
        header[name]["shape"] = header[name]["shape"][::-1]
    else:
        header[name]["shape"] = [1, *header[name]["shape"]]


def _numbers(header, body, chance):
    """Other numbers in a tensor."""
    names = sorted(header.keys() - {"__metadata__"})
    if not names:
        return
    start, end = header[chance.choice(names)]["data_offsets"]
    pattern = chance.choice((b"\0\0", b"\xff\x7b", b"\xff\xff", b"\0\x7c", b"\x01\x00", b"\0\x5a"))
    body[start:end] = (pattern * ((end - start) // 2 + 1))[: end - start]
