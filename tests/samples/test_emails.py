"""SpamAssassin's e-mails: reading them, and fetching none but the right ones."""

import io
import json
import tarfile

import pytest

from keras_seqattn import samples
from keras_seqattn.errors import DataError
from keras_seqattn.samples import emails
from keras_seqattn.samples.download import digest

pytestmark = pytest.mark.backend_free

PLAIN = "From: a@b.c\nSubject: The  list\nX-Spam: no\n\nOne\tline,\n\n> another.\n"
MIXED = """Subject: Offer
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="cut"

--cut
Content-Type: text/html
Content-Transfer-Encoding: quoted-printable

<style>p {}</style><p>Sa=
ve 5=25 &amp; <!-- <b> -->more</p>
--cut
Content-Type: application/zip
Content-Transfer-Encoding: base64

AAAA
--cut--
"""


def test_an_email_is_its_subject_and_text():
    assert emails.read_email(PLAIN) == "The list\nOne line,\n> another."


def test_markup_encodings_and_attachments_are_taken_off():
    assert emails.read_email(MIXED) == "Offer\nSave 5% & more"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three small e-mails, where npm would put it, and no npm."""
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "samples" / "datasets-spam-assassin-0.2.3.tgz"
    path.parent.mkdir()
    found = {"spam-1/1.b": MIXED, "easy-ham-1/2.a": "Subject: \n\n", "easy-ham-1/1.a": PLAIN}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in found.items():
            content = json.dumps({"group": name.partition("/")[0], "text": text}).encode()
            member = tarfile.TarInfo(f"package/data/{name}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(emails, "_SHA256", digest(path))
    monkeypatch.setattr(emails, "_URL", path.as_uri())
    return path


def test_emails_come_with_their_labels(package):
    assert samples.spam_assassin() == [
        ("The list\nOne line,\n> another.", False),
        ("Offer\nSave 5% & more", True),
    ]


def test_another_package_is_refused_and_the_cache_left_empty(package, tmp_path, monkeypatch):
    other = tmp_path / "other.tgz"
    other.write_bytes(b"not the corpus")
    package.unlink()
    monkeypatch.setattr(emails, "_URL", other.as_uri())
    with pytest.raises(DataError, match="sha256 is not the expected one") as caught:
        samples.spam_assassin()
    assert str(package) in str(caught.value)
    assert list(package.parent.iterdir()) == []


def test_npm_that_fails_says_why(package, tmp_path):
    package.unlink()
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(DataError, match="E404"):
        samples.spam_assassin()


@pytest.mark.slow
def test_the_real_emails():
    try:
        found = samples.spam_assassin()
    except DataError as error:
        pytest.skip(f"no npm registry at hand: {error}")
    assert len(found) > 6000
    assert 1850 < sum(is_spam for _, is_spam in found) < 1900
