from __future__ import annotations

from replicator.storage.blobs.read_buffers import ReadBuffers

SIZE = 4096


def test_a_buffer_is_used_again_once_no_view_of_it_is_left() -> None:
    buffers = ReadBuffers(SIZE)
    first = buffers.take(SIZE)
    memory = first.obj
    del first
    assert buffers.take(SIZE).obj is memory


def test_a_view_never_changes_under_whoever_holds_a_part_of_it() -> None:
    buffers = ReadBuffers(SIZE)
    view = buffers.take(SIZE)
    view[:] = b"a" * SIZE
    held = [view[10:20]]
    del view
    for _ in range(20):
        other = buffers.take(SIZE)
        other[:] = b"b" * SIZE
        held.append(other[:1])
    assert held[0] == b"a" * 10
    assert len({id(part.obj) for part in held}) == len(held)


def test_a_view_has_the_length_asked_for_whatever_was_there_before() -> None:
    buffers = ReadBuffers(SIZE)
    assert [len(buffers.take(length)) for length in (SIZE, 1, 100, SIZE, 0)] == [SIZE, 1, 100, SIZE, 0]


def test_more_readers_than_buffers_that_stay() -> None:
    buffers = ReadBuffers(SIZE)
    views = [buffers.take(SIZE) for _ in range(50)]
    assert len({id(view.obj) for view in views}) == 50
