#!/usr/bin/env python3
"""Checks a MessagePack library against the golden vectors of the protocol. Exits with 1 when one does not hold.

    pip install msgpack
    python3 test_vectors.py [FOLDER]              default: protocol/vectors of this checkout
"""

import json
import pathlib
import sys

import msgpack

MAGIC = b"LW\x01"


def frame(text):
    """A frame from its hex digits; `80*65537` is byte 80, 65,537 times."""
    byte, star, count = text.partition("*")
    return bytes.fromhex(byte) * (int(count) if star else 1)


def plain(value):
    """A decoded body as JSON would have it: bytes as a list of numbers."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def payloads(value):
    """How many payload frames a body asks for: one for each format word at a payload's place."""
    if isinstance(value, list):
        return sum(payloads(item) for item in value)
    if not isinstance(value, dict):
        return 0
    places = ("payload", "result", "data", "checkpoint")
    return sum(payloads(item) + (key in places and item in ("json", "bin")) for key, item in value.items())


def check_message(vector):
    header, body, *rest = map(frame, vector["frames"])
    assert header[:3] == MAGIC and len(header) == 4, "header"
    decoded = msgpack.unpackb(body)
    assert plain(decoded) == vector["body"], "the body means something else"
    assert len(rest) == payloads(decoded), "the number of payload frames"
    # Field by field the same bytes: MessagePack has one shortest form, and our library writes that.
    assert msgpack.packb(decoded) == body, "the library writes the body in another way"


def check_accepted(vector):
    _, *body = map(frame, vector["frames"])
    decoded = plain(msgpack.unpackb(body[0])) if body else {}
    for key in decoded.keys() & vector["means"].keys():
        assert decoded[key] == vector["means"][key], key


def check_refused(vector):
    assert isinstance(vector["code"], str)
    for text in vector["frames"]:
        frame(text)


def main():
    here = pathlib.Path(__file__).resolve()
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[2] / "protocol" / "vectors"
    checked, failed = 0, 0
    for path in sorted(folder.glob("*.json")):
        check = {"accepted": check_accepted, "refused": check_refused}.get(path.stem, check_message)
        for vector in json.loads(path.read_text()):
            checked += 1
            try:
                check(vector)
            except Exception as error:
                failed += 1
                print(f"{path.name}: {vector['about']}: {type(error).__name__}: {error}")
    print(f"{checked} vectors, {failed} failed")
    sys.exit(1 if failed or not checked else 0)


if __name__ == "__main__":
    main()
