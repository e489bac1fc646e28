"""Writes small real files of several kinds, for `cargo xtask demo` to have their types named.

    python make_samples.py FOLDER
"""

import csv
import gzip
import io
import json
import pathlib
import struct
import sys
import wave
import zipfile
import zlib

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Bombax ceiba</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 40em; margin: auto; }</style></head>
<body>
<h1>The kapok tree</h1>
<p>Its red flowers open in spring, before the leaves. In Guangzhou it is the <em>hero tree</em>.</p>
<ul><li>height: up to 40 m</li><li>flowers: five petals</li></ul>
<script>document.querySelector("h1").addEventListener("click", () => alert("bloom"));</script>
</body>
</html>
"""


def png(width: int = 96, height: int = 64) -> bytes:
    """A colour gradient in eight-bit RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x * 255 // width, y * 255 // height, 96))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(5):
            file.writestr(f"notes/{number}.txt", f"note {number}\n" * 50)
    return out.getvalue()


def table() -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["city", "country", "population", "elevation_m"])
    cities = [("Guangzhou", "China"), ("Lima", "Peru"), ("Oslo", "Norway"), ("Nairobi", "Kenya"), ("Quito", "Ecuador")]
    for number in range(60):
        city, country = cities[number % len(cities)]
        rows.writerow([f"{city} {number}", country, 1_000_000 + number * 7919, 20 + number * 13])
    return out.getvalue().encode()


def sound(rate: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", (n % 40 - 20) * 600) for n in range(rate // 4)))
    return out.getvalue()


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    document = {"trees": [{"name": f"kapok {n}", "height_m": 20 + n, "red": n % 2 == 0} for n in range(40)]}
    files = {
        "picture.png": png(),
        "notes.zip": archive(),
        "table.csv.gz": gzip.compress(table(), mtime=0),
        "table.csv": table(),
        "page.html": PAGE.encode(),
        "trees.json": json.dumps(document, indent=2).encode(),
        "tone.wav": sound(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
