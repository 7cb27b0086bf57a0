"""`abaw report`: what the page says, that it holds nothing foreign, and what it does where something is missing."""

import base64
import functools
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config_file import load_config
from abaw.errors import AbawError
from abaw.stages import report
from abaw.stages.report import numbers, page, plots, subject, timelines, training
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from tests.unit.faces_store import make_faces, picture
from tests.unit.stages.reported_run import (
    HOST,
    HOSTILE,
    PLAIN,
    ROWS,
    RUN,
    make_reported,
    write_labels,
    write_run,
    write_store,
)

VOID = {"img", "source", "meta", "link", "br"}


class Reader(HTMLParser):
    """Elements in order as (name, attributes), the text of each by number, and whether they nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        self.texts.append("")
        if name not in VOID:
            self._open.append((name, len(self.texts) - 1))

    def handle_endtag(self, name):
        assert self._open.pop()[0] == name

    def handle_data(self, data):
        for _, number in self._open:
            self.texts[number] += data

    def all(self, name):
        return [attributes for found, attributes in self.elements if found == name]

    def text_of(self, name):
        return [text for (found, _), text in zip(self.elements, self.texts, strict=True) if found == name]

    def table(self, caption):
        """Rows of cells of the first table whose caption begins so."""
        start = next(k for k, (name, _) in enumerate(self.elements) if name == "table" and caption in self._caption(k))
        rows = []
        for (name, _), text in zip(self.elements[start + 1 :], self.texts[start + 1 :], strict=True):
            if name == "table":
                break
            if name == "tr":
                rows.append([])
            elif name in ("td", "th"):
                rows[-1].append(text)
        return rows

    def _caption(self, start):
        return next(
            text for (name, _), text in zip(self.elements[start:], self.texts[start:], strict=True) if name == "caption"
        )


@pytest.fixture
def cfg(tmp_path):
    return make_reported(tmp_path)


def written(cfg, run=RUN, **options):
    return Path(report.run(cfg, run, **options).data["path"]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a run that is left as it is, each made once: call it with what `abaw report` takes."""
    cfg = make_reported(tmp_path_factory.mktemp("reported"), videos=12)
    return functools.cache(lambda run=RUN, with_faces=False: written(cfg, run, with_faces=with_faces))


def changed(cfg, *overrides):
    return load_config(cfg.root / "data.toml", overrides=overrides)


# -- what the page says ----------------------------------------------------------------------------------------------
def test_the_page_is_named_after_the_predictions(cfg, tmp_path):
    summary = report.run(cfg, RUN)
    assert summary.data["path"] == str(tmp_path / "reports" / f"{RUN}.html")


def test_the_command_writes_the_page_and_says_where(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["report", RUN, "--out", "page.html", "-q"])
    assert result.exit_code == 0, result.output
    assert "page.html" in result.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_metrics_stand_in_both_countings_with_intervals(pages):
    rows = Reader(pages()).table("Metrics in both countings")
    assert rows[0] == ["Metric", "All annotated rows", "Rows with a face"]
    assert [row[0] for row in rows[1:]] == ["Official: mean CCC", "CCC valence", "CCC arousal"]
    for cell in (cell for row in rows[1:] for cell in row[1:]):
        assert re.fullmatch(r"-?\d\.\d{3} -?\d\.\d{3} to -?\d\.\d{3}", cell)
    assert rows[1][1] != rows[1][2]


def test_scores_equal_to_the_labels_are_worth_one(cfg, tmp_path):
    write_store(tmp_path / "predictions" / "right", "au", ["trained", PLAIN], {"held_out": [PLAIN]})
    rows = Reader(written(changed(cfg, 'submit.gap="nearest"'), "right")).table("F1 of each unit")
    assert len(rows) == 13
    # AU26 of the second video, (row + 1) // 13 % 2, changes at rows 12 and 25; rows 10 to 13 are filled from rows 9
    # and 14, which are nearest to 10, 11 and to 12, 13: no decision is wrong
    assert rows[12][:2] == ["AU26", "1.000"]


def test_the_confusion_table_counts_rows(pages):
    rows = Reader(pages("fuse-expr-netease")).table("Rows by truth")
    counts = np.array([[int(cell) for cell in row[1:]] for row in rows[1:]])
    assert counts.sum() == 2 * ROWS
    # classes in runs of 4 rows: the first video begins with class 0 and ends with 2 rows of class 7, the second begins
    # with class 1 and ends with 2 rows of class 0
    assert counts.sum(axis=1).tolist() == [4 + 2, 8, 8, 8, 8, 8, 8, 2 + 4]


def test_the_worst_video_stands_first_and_leads_to_its_timeline(pages):
    found = Reader(pages())
    rows = found.table("All videos")
    assert [row[0] for row in rows[1:]] == [HOSTILE, PLAIN]
    assert [row[4:] for row in rows[1:]] == [["30", "30", "0"], ["30", "25", "4"]]
    assert "video-1" in {attributes.get("id") for attributes in found.all("h3")}
    assert "#video-1" in {attributes["href"] for attributes in found.all("a")}


def test_stretches_without_a_score_or_a_face_are_told(pages):
    text = " ".join(Reader(pages()).text_of("p"))
    assert "Without a score of its own: 0:00.4 to 0:00.6 (4 frames)." in text
    assert "Without a face: 0:00.8 to 0:01.0 (5 frames)." in text


def test_the_run_card_names_weights_versions_and_labels(cfg):
    found = Reader(written(cfg))
    text = found.texts[0]
    sha256 = json.loads((cfg.root / "predictions" / RUN / "store.json").read_text())["settings"]["weights"]
    for wanted in (sha256, "0.001", "<b>2.13</b>", "visual-x", "mtcnn", "<script>alert(2)</script>", "device"):
        assert wanted in text
    assert "are those that made these predictions" in text


def test_other_weights_than_the_recorded_ones_are_told(cfg, tmp_path):
    (tmp_path / "runs" / RUN / "best.safetensors").write_bytes(b"others")
    assert "not those that made these predictions" in written(cfg)


def test_the_name_of_the_machine_stays_out(pages):
    assert HOST not in pages()


def test_only_so_many_timelines_are_drawn(cfg):
    few = Reader(written(cfg))
    assert len(few.text_of("article")) == 1
    assert "1 more are drawn with report.videos = 0" in few.texts[0]
    assert len(Reader(written(changed(cfg, "report.videos=0"))).text_of("article")) == 2


def test_post_processing_is_told_and_may_be_left_aside(cfg, tmp_path):
    post = {"half_width": {"va": 2}, "filter": {"va": "median"}, "fitted_on": "folds of va"}
    (tmp_path / "predictions" / RUN / "post.json").write_text(json.dumps(post))
    assert "Decisions are post-processed (va: median 2), as chosen on folds of va." in written(cfg)
    raw = written(cfg, raw=True)
    assert "post-processed" not in raw
    assert "left aside: the scores as they are" in raw


def test_labels_and_task_may_be_given(cfg, tmp_path):
    write_labels(tmp_path / "other", "expr", [PLAIN])
    (tmp_path / "data.toml").write_text("[data]\n")
    bare = load_config(tmp_path / "data.toml")
    summary = report.run(bare, "fuse-expr-netease", labels=tmp_path / "other", task="expr")
    assert summary.data["task"] == "expr"
    assert Reader(Path(summary.data["path"]).read_text()).table("All videos")[1][0] == PLAIN


# -- nothing foreign -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [RUN, "fuse-expr-netease", "fuse-au-netease"])
def test_the_page_holds_no_script_and_no_address_but_its_own(pages, name):
    found = Reader(pages(name, with_faces=True))
    assert {tag for tag, _ in found.elements} & {"script", "svg", "iframe", "object", "form", "base"} == set()
    for _, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "srcset", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:"))
    assert "url(" not in found.text_of("style")[0]
    assert "@import" not in found.text_of("style")[0]


def test_hostile_names_are_text(pages):
    found = Reader(pages())
    assert HOSTILE in found.text_of("h3")[0]
    assert all(attributes["src"].startswith("data:image/") for attributes in found.all("img"))


def test_names_do_not_get_into_the_pictures(pages):
    for attributes in Reader(pages()).all("img"):
        kind, content = attributes["src"].split(",")
        assert kind == "data:image/svg+xml;base64"
        assert "onerror" not in base64.b64decode(content).decode()


def test_everything_but_own_styles_and_data_images_is_forbidden(pages):
    (policy,) = [a["content"] for a in Reader(pages()).all("meta") if "http-equiv" in a]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == "'unsafe-inline'"
    assert directives["img-src"] == "data:"


def test_text_that_no_page_may_hold_is_replaced(cfg, tmp_path):
    (tmp_path / "runs" / RUN / "config.json").write_text('{"note": "a\\ud800b\\u0000c\\u202ed"}')
    assert "a\ufffdb\ufffdc\ufffdd" in written(cfg)


def test_records_that_cannot_be_read_are_left_out(cfg, tmp_path):
    (tmp_path / "runs" / RUN / "config.json").write_text("[" * 100_000)
    (tmp_path / "runs" / RUN / "done").write_bytes(b"\xff\xfe")
    (tmp_path / "runs" / RUN / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\nno json\n[1]\n')
    assert "2 lines of metrics.jsonl could not be read" in written(cfg)


# -- for everybody ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [RUN, "fuse-expr-netease"])
def test_every_figure_table_and_link_is_described(pages, name):
    found = Reader(pages(name, with_faces=True))
    assert found.all("html") == [{"lang": "en"}]
    assert all(len(attributes["alt"]) > 8 for attributes in found.all("img"))
    assert len(found.text_of("caption")) == len(found.all("table"))
    assert len(found.text_of("figcaption")) == len(found.all("figure"))
    assert all(found.text_of("caption") + found.text_of("figcaption") + found.text_of("summary"))
    anchors = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    assert {a["href"][1:] for a in found.all("a")} <= set(anchors)


def test_headings_go_down_one_level_at_a_time(pages):
    levels = [int(name[1]) for name, _ in Reader(pages()).elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_every_figure_has_its_numbers(pages):
    text = pages()
    figures = re.findall("<figure>.*?</figure>", text, re.DOTALL)
    assert figures
    assert all("<table" in figure for figure in figures)


# -- faces -----------------------------------------------------------------------------------------------------------
def test_faces_are_shown_only_when_asked_for(pages):
    assert "data:image/jpeg" not in pages()
    assert "personal data" not in pages()


def test_faces_come_with_a_notice_and_small(pages):
    found = Reader(pages(with_faces=True))
    faces = [a["src"] for a in found.all("img") if a["src"].startswith("data:image/jpeg")]
    assert len(faces) == 2 * 3
    with Image.open(BytesIO(base64.b64decode(faces[0].partition(",")[2]))) as image:
        assert image.size == (96, 96)
        assert not image.getexif()
    assert "personal data" in found.texts[0]


def test_a_video_without_faces_here_says_so(cfg, tmp_path):
    (tmp_path / "features" / "faces" / f"{HOSTILE}.h5").unlink()
    assert "The faces of this video are not on this machine." in written(cfg, with_faces=True)


# -- what RUN may be -------------------------------------------------------------------------------------------------
def test_a_run_is_found_by_name_folder_and_predictions(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = subject.find(cfg, RUN)
    assert (found.store, found.runs) == (tmp_path / "predictions" / RUN, {RUN: tmp_path / "runs" / RUN})
    for given in (f"runs/{RUN}", f"predictions/{RUN}", str(tmp_path / "runs" / RUN), f"{RUN}/"):
        assert subject.find(cfg, given) == found


@pytest.fixture
def folded(cfg, tmp_path):
    """A cross-validated run: two folds, their scores, and those joined."""
    first, second = (write_run(tmp_path / "runs/fuse-va-cv" / f"fold-{k}", weights=bytes([k])) for k in range(2))
    store = tmp_path / "predictions"
    write_store(store / "fuse-va-cv-fold-0", "va", [HOSTILE], {"weights": first, "held_out": [HOSTILE]})
    write_store(
        store / "fuse-va-cv-folds", "va", [HOSTILE, PLAIN], {"weights": [first, second], "held_out": [HOSTILE, PLAIN]}
    )
    members = [{"name": "fuse-va-cv-folds", "weight": 0.5}, {"name": RUN, "weight": 0.5}]
    write_store(store / "fuse-va-both", "va", [HOSTILE, PLAIN], {"members": members})
    write_store(store / "fuse-va-unseen", "va", [], {"members": members, "holdout": []})
    return cfg


def test_a_cross_validated_run_is_shown_by_its_held_out_scores(folded):
    summary = report.run(folded, "fuse-va-cv")
    assert summary.data["name"] == "fuse-va-cv-folds"
    found = Reader(written(folded, "fuse-va-cv"))
    assert [row[0] for row in found.table("Training runs")[1:]] == ["fuse-va-cv/fold-0", "fuse-va-cv/fold-1"]
    assert "held-out tracks" in found.texts[0]


@pytest.mark.parametrize("given", ["fuse-va-cv-fold-0", "runs/fuse-va-cv/fold-0", "predictions/fuse-va-cv-fold-0"])
def test_one_fold_may_be_named(folded, given):
    found = Reader(written(folded, given))
    assert len(found.table("Training runs")) == 2
    assert found.text_of("h1") == ["fuse-va-cv-fold-0"]


def test_an_ensemble_shows_the_runs_of_its_members(folded):
    rows = Reader(written(folded, "fuse-va-both")).table("Training runs")
    assert [row[0] for row in rows[1:]] == ["fuse-va-cv/fold-0", "fuse-va-cv/fold-1", RUN]


def test_scores_that_nothing_can_measure_still_give_a_page(folded):
    found = Reader(written(folded, "fuse-va-unseen"))
    assert "holds no labelled video that the models behind it have not seen" in found.texts[0]
    assert found.text_of("h2")[0] == "Training"


def test_a_store_without_its_run_says_what_is_missing(cfg):
    summary = report.run(cfg, "fuse-au-netease")
    assert "The run folder of fuse-au-netease is not on this machine" in summary.data["missing"][0]
    assert summary.data["missing"][0] in written(cfg, "fuse-au-netease")


def test_single_images_have_no_timelines(tmp_path):
    keys = [
        f"lsd/{split}/{name}/{k}.jpg" for split in ("train", "val") for name in ("Anger", "Sadness") for k in range(3)
    ]
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"")
    names = [key.removeprefix("lsd/") for key in keys]
    make_faces(tmp_path / "features" / "faces", {"part-000": [picture(k) for k in range(12)]}, keys={"part-000": names})
    head = TASKS["lsd"].heads[0]
    header = StoreHeader(
        "predictions", "lsd", {"scores/lsd": ArraySpec("float32", (6,))}, {}, label_order={"lsd": list(head.labels)}
    )
    right = np.eye(6, dtype=np.float32)[[0] * 3 + [4] * 3 + [0] * 3 + [4] * 3]
    store = FeatureStore.create(tmp_path / "predictions" / "lsd", header)
    store.write("part-000", {"valid": np.ones(12, bool), "scores/lsd": right}, fps=25)
    (tmp_path / "data.toml").write_text('[data]\nkind = "images"\nimages = "lsd"\nannotations = { lsd = "lsd" }\n')
    found = Reader(written(load_config(tmp_path / "data.toml"), "lsd"))
    assert "so that there are no timelines" in found.texts[0]
    assert found.table("F1 of each class")[1][:2] == ["Anger", "1.000"]
    assert not found.all("article")


def test_a_run_without_scores_still_gives_its_curves_and_card(cfg, tmp_path):
    write_run(tmp_path / "runs" / "pretrain-mae")
    found = Reader(written(cfg, "pretrain-mae"))
    assert found.text_of("h2") == ["Training", "Run card"]
    assert "there is nothing to measure" in found.texts[0]


def test_scores_without_labels_still_give_a_page(cfg, tmp_path):
    (tmp_path / "data.toml").write_text("[data]\n")
    text = written(load_config(tmp_path / "data.toml"))
    assert "names no labels of task va" in text


def test_an_unknown_name_leads_to_the_nearest(cfg):
    with pytest.raises(AbawError, match="no run and no predictions store 'fuse-va-netaese'") as error:
        report.run(cfg, "fuse-va-netaese")
    assert error.value.fix == f"abaw report {RUN}"


def test_a_page_that_cannot_be_written_leaves_nothing(cfg, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(AbawError, match=r"page\.html could not be written"):
        report.run(cfg, RUN, out=tmp_path / "file" / "page.html")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "file"])


def test_the_same_run_gives_the_same_page(cfg):
    assert written(cfg) == written(cfg)


# -- drawing ---------------------------------------------------------------------------------------------------------
def test_a_long_curve_keeps_its_extremes():
    values = np.zeros(100_000)
    values[[12_345, 67_890]] = 7, -3
    steps, kept = plots.thinned(np.arange(100_000), values, 200)
    assert len(kept) <= 202
    assert {7, -3} <= set(kept)
    assert (np.diff(steps) > 0).all()


def test_a_curve_with_holes_keeps_them():
    values = np.full(1000, np.nan)
    values[:500] = 1
    _, kept = plots.thinned(np.arange(1000), values, 100)
    assert np.isnan(kept[-1])
    assert np.isfinite(kept).sum() == 25  # of equal values the lowest is the highest: one of each of 25 parts


def test_stretches_are_begin_and_end():
    flags = np.array([1, 1, 0, 0, 1, 0, 1], bool)
    assert timelines.stretches(flags).tolist() == [[0, 2], [4, 5], [6, 7]]
    assert timelines.stretches(np.zeros(3, bool)).tolist() == []


def test_a_label_without_neighbours_is_drawn_as_a_point():
    unlabelled = np.array([0, 1, 0, 0, 1, 0, 1, 1], bool)
    assert timelines._alone(unlabelled).tolist() == [True, False, False, False, False, True, False, False]
    assert timelines._alone(np.zeros(1, bool)).tolist() == [True]


def test_an_hour_of_video_takes_no_more_room_than_a_minute(cfg):
    def size(rows):
        rng = np.random.default_rng(0)
        values = rng.random((rows, 2))
        head = timelines.head_view(
            report.Predictions(cfg.root / "predictions" / RUN).task.heads[0], values, values, values > 0
        )
        nothing = np.zeros(rows, bool)
        return len(timelines.drawn(timelines.TrackView([head], nothing, nothing, 30.0), head, {}, name="x"))

    assert size(108_000) < 1.1 * size(1800)


def test_pictures_are_xml_and_fit_their_windows():
    wide, narrow = plots.confusion(["a", "b_c"], np.array([[3, 1], [0, 4]]))
    widths = []
    for one in (wide, narrow):
        root = ElementTree.fromstring(base64.b64decode(one.partition(",")[2]))
        widths.append(float(root.attrib["width"].removesuffix("pt")) * 96 / 72)
    assert widths == pytest.approx([520, 368])


def test_the_short_form_of_a_path_draws_the_same():
    found = re.search(r"(?s).*", ' d="M 0.123 4.567 \nL 10.25 -3.0 \nL 11 12 \nz"')
    assert plots._short_path(found) == ' d="M 0.1 4.5 10.2 -3.0 11 12 \nz"'
    curved = re.search(r"(?s).*", ' d="M 0 1 \nC 1 2 3 4 5 6 \nL 7 8 \nz"')
    assert plots._short_path(curved) == curved[0]


def test_curves_are_read_line_by_line_without_what_is_no_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2}\n{"step": 2, "loss": Infinity, "val score": 0.5}\n{"step": true}\n{"a": 1}\n'
    )
    curve = training.read_curve(path)
    assert curve.steps.tolist() == [1, 2]
    assert curve.columns["loss"].tolist()[0] == 2
    assert np.isnan(curve.columns["loss"][1])
    assert curve.unread == 2


# -- writing ---------------------------------------------------------------------------------------------------------
def test_text_is_escaped_once():
    assert page.tag("p", "a<b", page.code("&")) == "<p>a&lt;b<code>&amp;</code></p>"
    assert page.tag("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'


def test_numbers_are_written_for_people():
    assert numbers.count(1234567) == "1\u00a0234\u00a0567"
    assert numbers.score(None) == numbers.score(float("nan")) == numbers.share(1, 0) == "\u2013"
    assert numbers.clock(62.44) == "1:02.4"
    assert numbers.clock(59.96) == "1:00.0"
    assert numbers.plural(1, "frame") == "1 frame"
