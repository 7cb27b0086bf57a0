"""What `abaw check` and `abaw align` take from sample files of every kind."""

from abaw.config import Config
from abaw.data.ledger import Named, sample_rows


def config(edition, task, sample):
    return Config.model_validate(
        {"root": sample.parent, "submit": {"edition": edition, "task": task, "sample": sample}}
    )


def test_a_file_with_a_row_per_image_gives_the_last_row_and_their_count(tmp_path):
    path = tmp_path / "sample.txt"
    path.write_text("image_location,valence,arousal\na/00001.jpg,0,0\nb/00007.jpg,0,0\na/00003.jpg,0,0\n")
    assert sample_rows(config("10", "va", path)) == {"va": {"a": Named(3, 2), "b": Named(7, 1)}}


def test_the_list_of_edition_3_gives_the_rows_of_its_videos(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a,3\nb_left,2\n")
    assert sample_rows(config("3", "expr", path)) == {"expr": {"a": Named(3, 3), "b_left": Named(2, 2)}}


def test_images_named_alone_say_nothing_about_tracks(tmp_path):
    path = tmp_path / "sample.txt"
    path.write_text("image,expression\n0.jpg,0\n1.jpg,0\n")
    assert sample_rows(config("4", "lsd", path)) == {}
