"""Debian's descriptions: reading indexes, aligning texts, and fetching none but the right ones."""

import bz2
import functools
import hashlib
import http.server
import lzma
import shutil
import threading

import pytest

from keras_seqattn import samples
from keras_seqattn.errors import DataError, InputError
from keras_seqattn.samples import debian

pytestmark = pytest.mark.backend_free

ENGLISH = """Package: beta
Description-md5: 22
Description-en: tool  for birds
 It counts birds.
 In two ways:
  * by  hand,
  * by ear,
    with care.
 .
 This package has the program.

Package: alpha
Description-md5: 11
Description-en: same in both
 This package has the program.
 .
 Another paragraph.

Package: gamma
Description-md5: 33
Description-en: only in English

"""
ITALIAN = """Package: alpha
Description-md5: 11
Description-it: same in both
 Il programma è in questo pacchetto.
 .
 Un altro paragrafo.

Package: beta
Description-md5: 22
Description-it: strumento per\u22c5uccelli
 Conta gli uccelli. In due modi:
   - a mano,
   - ad orecchio, con cura.
 .
 Questo pacchetto contiene il programma.

Package: gamma
Description-md5: 34
Description-it: di un'altra versione

"""


def pairs(kind):
    english = debian.parse_index(ENGLISH, "en")
    return debian.align(english, debian.parse_index(ITALIAN, "it"), kind)


SYNOPSES = [("tool for birds", "strumento per uccelli")]
PARAGRAPHS = [
    ("This package has the program.", "Il programma è in questo pacchetto."),
    ("Another paragraph.", "Un altro paragrafo."),
    ("It counts birds. In two ways:", "Conta gli uccelli. In due modi:"),
    ("by hand,", "a mano,"),
    ("by ear, with care.", "ad orecchio, con cura."),
]


def test_synopses_and_paragraphs():
    assert pairs("synopsis") == SYNOPSES
    assert pairs("paragraph") == PARAGRAPHS
    assert sorted(pairs("segment")) == sorted(SYNOPSES + PARAGRAPHS)


def test_texts():
    assert pairs("text") == [
        ("\n".join(english), "\n".join(italian))
        for english, italian in (
            zip(*PARAGRAPHS[:2], strict=True),
            (
                [*(pair[0] for pair in PARAGRAPHS[2:]), "This package has the program."],
                [*(pair[1] for pair in PARAGRAPHS[2:]), "Questo pacchetto contiene il programma."],
            ),
        )
    ]


def test_paragraphs_that_do_not_match_are_left_out():
    english = {("a", "1"): ("one", [" First.", " .", " Second."])}
    translated = {("a", "1"): ("uno", [" Primo e secondo."])}
    assert debian.align(english, translated, "paragraph") == []
    assert debian.align(english, translated, "segment") == [("one", "uno")]
    far = {("a", "1"): ("molto più di tre volte più lungo", [])}
    assert debian.align(english, far, "segment") == []


def test_refuses_other_languages_and_kinds():
    with pytest.raises(InputError, match="it, fr, de"):
        samples.debian_descriptions("en")
    with pytest.raises(InputError, match="synopsis"):
        samples.debian_descriptions("it", "long")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror of small indexes on this machine, and a cache of its own."""
    folder = tmp_path / "mirror" / "debian" / "dists" / "bookworm" / "main" / "i18n"
    folder.mkdir(parents=True)
    (folder / "Translation-en.xz").write_bytes(lzma.compress(ENGLISH.encode()))
    (folder / "Translation-it.bz2").write_bytes(bz2.compress(ITALIAN.encode()))
    handler = functools.partial(_Quiet, directory=str(tmp_path / "mirror"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/debian/"
    monkeypatch.setattr(debian, "_MIRRORS", (base.replace("debian", "empty"), base))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    indexes = {
        path.stem[-2:]: (path.suffix[1:], hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
    }
    monkeypatch.setattr(debian, "_INDEXES", {"en": indexes["en"], "it": indexes["it"]})
    yield folder
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_fetched_once_and_kept(mirror, tmp_path):
    assert samples.debian_descriptions("it", "synopsis") == SYNOPSES
    shutil.rmtree(mirror)
    assert samples.debian_descriptions("it", "synopsis") == SYNOPSES
    cached = tmp_path / "cache" / "samples" / "debian-bookworm"
    assert {path.name for path in cached.iterdir()} == {"Translation-en.xz", "Translation-it.bz2"}


def test_another_digest_is_refused_and_nothing_left(mirror, tmp_path):
    (mirror / "Translation-en.xz").write_bytes(lzma.compress(b"Package: other"))
    with pytest.raises(DataError, match="sha256 is not the expected one") as caught:
        samples.debian_descriptions("it")
    assert "404" in str(caught.value) and "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "samples" / "debian-bookworm").iterdir()) == []


def test_a_damaged_copy_is_fetched_anew(mirror, tmp_path):
    cached = tmp_path / "cache" / "samples" / "debian-bookworm" / "Translation-en.xz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"damaged")
    assert samples.debian_descriptions("it", "synopsis") == SYNOPSES
    assert cached.read_bytes() == (mirror / "Translation-en.xz").read_bytes()


def test_apt_tells_the_mirror(tmp_path, monkeypatch):
    program = tmp_path / "apt-get"
    program.write_text(
        "#!/bin/sh\n"
        "echo \"'http://mirror.example/debian/dists/trixie/InRelease' a 0 \"\n"
        "echo \"'https://packages.example/apt/dists/stable/InRelease' b 0 \"\n"
        "echo \"'http://mirror.example/debian/dists/trixie/main/binary-amd64/Packages.xz' c 0 \"\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian._apt_mirrors() == ["http://mirror.example/debian/"]
    program.write_text("#!/bin/sh\nexit 100\n")
    assert debian._apt_mirrors() == []


@pytest.mark.slow
def test_the_real_descriptions():
    try:
        found = samples.debian_descriptions("it")
    except DataError as error:
        pytest.skip(f"no Debian mirror at hand: {error}")
    assert len(found) == 123977
    sources = {source for source, _ in found}
    assert len(sources) == len(found)
    assert ("Real-time strategy game of ancient warfare", "gioco di strategia in tempo reale di "
            "guerra antica") in found  # fmt: skip
