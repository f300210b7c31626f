"""What memory there is, and what is refused because of it."""

import subprocess
import sys

import numpy as np
import pytest

from keras_seqattn import memory
from keras_seqattn.errors import InputError

pytestmark = pytest.mark.backend_free


def test_memory_of_the_machine_can_be_taken():
    available = memory.available_memory()
    assert 64 << 20 < available < 2**50
    np.ones(8 << 20, np.uint8)


def test_too_much_is_refused_in_one_line():
    memory.check_memory(1 << 20, "a megabyte", "-")
    with pytest.raises(InputError, match="^beams need at least 4093 TiB of memory, .*: lower it$"):
        memory.check_memory(4_500_000_000_000_000, "beams", "lower it")
    with pytest.raises(InputError, match="over a million TiB"):
        memory.check_memory(10**400, "beams", "lower it")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")
def test_limits_of_the_process_count():
    code = (
        "import resource; from keras_seqattn.memory import available_memory; "
        "resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20)); "
        "print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert 0 < int(done.stdout) < 400 << 20


def test_a_container_leaves_its_limit_less_what_is_in_use(tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 30000\nactive_file 5000\n")
    names = ("memory.max", "memory.current")
    assert memory._left(tmp_path, *names) == 635_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left(tmp_path, *names) is None
