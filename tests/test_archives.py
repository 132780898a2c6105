"""U11: no archive is ever unpacked, so none can write outside of where it should.

Runs are folders, corpora single files; importing a packed run is not offered. sacreBLEU unpacks
what it downloads itself from its own list, when `sacrebleu:NAME` is asked for. That no source
spells a way to unpack is in test_structure.py, where the sources are parsed.
"""

import gzip
import io
import shutil
import tarfile
import zipfile

import pytest
from runs import copy_of, run_here, tiny_run
from test_filters import data_config, pairs_of

from seq2seq.run.errors import DataError, one_line


def evil_tar() -> bytes:
    """Members that lead out of the folder: absolute, by `..`, through a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("/tmp/u11-absolute", "../u11-up", "../../u11-up"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/"
        archive.addfile(link)
    return data.getvalue()


def evil_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("/tmp/u11-absolute", "../u11-up"):
            archive.writestr(name, b"evil")
    return data.getvalue()


ARCHIVES = {
    "x.tar": evil_tar(),
    "x.tar.gz": gzip.compress(evil_tar(), mtime=0),
    "x.tgz": gzip.compress(evil_tar(), mtime=0),
    "x.zip": evil_zip(),
    "x.npz": evil_zip(),
}


@pytest.fixture
def sealed(monkeypatch):
    """Whoever opens an archive fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an archive was opened")

    for module, name in ((tarfile, "open"), (shutil, "unpack_archive"), (zipfile, "ZipFile")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(tarfile.TarFile, "__init__", refuse)


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize("name", ARCHIVES)
def test_U11_an_archive_is_no_corpus(tmp_path, name):
    """As a file of text it is bytes that are no text."""
    folder = tmp_path / "a/b/c"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(ARCHIVES[name])
    cfg = data_config(root=str(folder), train=[name, name])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        list(pairs_of(cfg))
    assert one_line(caught.value).startswith(f"error: {folder / name}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.e2e
@pytest.mark.usefixtures("sealed")
def test_U11_archives_in_a_run_stay_packed(tmp_path, tmp_path_factory, monkeypatch):
    run = copy_of(tiny_run(tmp_path_factory.getbasetemp()), tmp_path / "a/b/run")
    for name, data in ARCHIVES.items():
        (run / name).write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    result = run_here(monkeypatch, "decode", run, stdin=b"the cat sees the dog .\n")
    assert result.code in (0, 7), result.err  # left alone, or refused by name
    if result.code == 7:
        assert result.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
