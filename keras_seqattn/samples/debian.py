"""Debian's package descriptions in English and in translation, as aligned text.

The texts are the Translation indexes of Debian 12 (bookworm), from the mirror that apt uses on this
machine, or else from Debian's own mirror. They are fetched on first use and kept in the user's
cache. They are not part of this package: each description has the licence of its package. This is a
free licence by Debian's guidelines, and the file debian/copyright of the package states it.
"""

import bz2
import lzma
import re
import shutil
import subprocess
import sys

from keras_seqattn.arguments import choice
from keras_seqattn.errors import DataError
from keras_seqattn.samples.cache import cache_dir
from keras_seqattn.samples.download import download, is_kept

KINDS = ("synopsis", "paragraph", "text", "segment")

_SUITE = "bookworm"
# As in the signed Release file of the suite (12.15), so everyone trains on the same text.
_INDEXES = {
    "en": ("xz", "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0"),
    "it": ("bz2", "f01a5f14992838ff8140da6e025c514c900c4f55d3169d5ef1710ed2deee2bde"),
    "fr": ("bz2", "3248f0206d704300067e35cc2d4380dc1f1b418b5b9f446c3d42424b98d0abad"),
    "de": ("bz2", "2cc65c7f8b85d8a2964c3735bbf86be79bfd3342ef8908150e268137fe5dac7f"),
}
# An old suite is not on the mirrors any more, but in the archive.
_MIRRORS = ("https://deb.debian.org/debian/", "https://archive.debian.org/debian/")
_APT_MIRROR = re.compile(r"'(https?://\S+/debian/)dists/[^/']+/InRelease'")
_BULLET = re.compile(r"^(\s*[*•]|\s+[-+o–]|\s+\d+[.)])\s+")
# If the lengths of two texts differ by a larger factor, they are not translations of each other.
_LENGTH_RATIO = 3


def debian_descriptions(language="it", kind="segment"):
    """Aligned descriptions of Debian's packages, in English and in another language.

    The description of a package is a synopsis of one line and a longer text with paragraphs and
    list items. The languages are aligned by package and digest of the English text. Paragraphs are
    aligned if both texts have the same number of them. White space and bullets are normalised.
    Untranslated texts and pairs of very different length are left out. If the same English text
    comes several times, the first pair is kept.

    Args:
        language: "it", "fr" or "de".
        kind: "synopsis", "paragraph" (a paragraph or list item), "text" (all paragraphs of a
            package, one per line), or "segment" (synopses and paragraphs).

    Returns:
        List of (English, translation), in the order of the names of the packages.

    Raises:
        InputError: there is no such language or kind.
        DataError: the indexes are not cached and could not be fetched.
    """
    languages = [name for name in _INDEXES if name != "en"]
    choice(language, "language", languages)
    choice(kind, "kind", tuple(KINDS))
    return align(_read(_index("en"), "en"), _read(_index(language), language), kind)


def align(english, translated, kind):
    """Pairs of texts from two dicts of `parse_index`, without repeated English texts.

    Args:
        english: dict (package, digest) -> (synopsis, list of lines).
        translated: the same in another language.
        kind: as for `debian_descriptions`.

    Returns:
        List of (English, translation).
    """
    pairs = {}
    for key in sorted(english.keys() & translated.keys()):
        for source, target in _pairs(english[key], translated[key], kind):
            if source not in pairs and _is_translation(source, target):
                pairs[source] = target
    return list(pairs.items())


def parse_index(text, language):
    """Read a Translation index.

    Args:
        text: str, the index.
        language: str, the language of the descriptions.

    Returns:
        dict (package, MD5 digest of the English description) -> (synopsis, list of lines).
    """
    field = f"\nDescription-{language}: "
    entries = {}
    for stanza in text.split("\n\n"):
        head, found, body = stanza.strip("\n").partition(field)
        fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
        if found and {"Package", "Description-md5"} <= set(fields):
            synopsis, *lines = body.split("\n")
            entries[fields["Package"], fields["Description-md5"]] = (_clean(synopsis), lines)
    return entries


def paragraphs(lines):
    """The paragraphs and list items of a long description, each as one line.

    Args:
        lines: list of str, the lines of the field, with their leading blanks.

    Returns:
        List of str.
    """
    found, starts = [], True
    for line in lines:
        line = line[1:]
        if line.strip() in ("", "."):
            starts = True
            continue
        bullet = _BULLET.match(line)
        if bullet or starts:
            found.append([])
        found[-1].append(line[bullet.end() :] if bullet else line)
        starts = False
    cleaned = (_clean(" ".join(parts)) for parts in found)
    return [text for text in cleaned if text]


def _pairs(english, translated, kind):
    if kind in ("synopsis", "segment"):
        yield english[0], translated[0]
    if kind == "synopsis":
        return
    sources, targets = paragraphs(english[1]), paragraphs(translated[1])
    if kind == "text":
        yield "\n".join(sources), "\n".join(targets)
    elif len(sources) == len(targets):
        yield from zip(sources, targets, strict=True)


def _is_translation(source, target):
    longest, shortest = max(len(source), len(target)), min(len(source), len(target))
    return source != target and 0 < longest <= _LENGTH_RATIO * shortest


def _clean(text):
    # Translators use a dot operator as a blank without a line break.
    return " ".join(text.replace("\u22c5", " ").split())


def _read(path, language):
    opened = lzma.open if path.suffix == ".xz" else bz2.open
    with opened(path, "rt", encoding="utf-8") as stream:
        return parse_index(stream.read(), language)


def _index(language):
    """Path of a verified index in the cache, fetched if it is not there."""
    suffix, sha256 = _INDEXES[language]
    path = cache_dir() / "samples" / f"debian-{_SUITE}" / f"Translation-{language}.{suffix}"
    if not is_kept(path, sha256):
        _fetch(path, sha256)
    return path


def _fetch(path, sha256):
    print(f"Fetching Debian's package descriptions ({path.name})", file=sys.stderr)
    reasons = []
    for mirror in dict.fromkeys([*_apt_mirrors(), *_MIRRORS]):
        url = f"{mirror}dists/{_SUITE}/main/i18n/{path.name}"
        try:
            return download(url, path, sha256)
        except (OSError, DataError) as error:
            reasons.append(f"{url}: {error}")
    raise DataError(
        f"cannot fetch {path.name} ({'; '.join(reasons)}); connect to a Debian mirror, "
        f"or put the file at {path}"
    )


def _apt_mirrors():
    """Addresses of the Debian mirrors that this machine's apt is set up to use."""
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "--print-uris", "update"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _APT_MIRROR.findall(done.stdout)
