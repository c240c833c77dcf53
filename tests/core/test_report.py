"""The report: one page, whole in itself, whose figures are those of the run."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from groundstate.components import Context, Decoder, Encoder, Regulariser, Solver, State
from groundstate.data import Splits, TensorSource
from groundstate.errors import InputError
from groundstate.formula import written
from groundstate.history import Record
from groundstate.hooks import Section, hookimpl
from groundstate.model import Model
from groundstate.parameters import NormBound
from groundstate.problem import Problem
from groundstate.report import codes, filters, inhibition, labels, observe, write_report
from groundstate.report.material import Material
from groundstate.report.pictures import as_pictures, sheet, signed_tiles
from groundstate.report.timeline import Timeline
from groundstate.report.words import number, percent, seconds
from groundstate.run import Run, train
from groundstate.stack import Layer, Stack
from groundstate.structure import Inhibition

CONFIG: dict[str, object] = {
    "name": "small",
    "data": {"type": "digits"},
    "model": {
        "encoder": {"type": "recurrent", "steps": 3},
        "decoder": {"type": "linear", "units": 30, "initialise": "data"},
    },
    "energy": {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {"type": "l1", "weight": 0.01, "non_negative": True},
        "classification": {"type": "cross-entropy", "weight": 0.3},
    },
    "inference": {"type": "amortised"},
    "learning": {"rate": 4e-3, "batch_size": 100, "log_every": 1},
    "phases": {
        "unsupervised": {"epochs": 1, "terms": ["reconstruction", "sparsity"]},
        "joint": {"epochs": 2, "schedule": "cosine"},
    },
    "evaluation": {"reference": {"type": "fista", "start": "encoder", "max_iterations": 50}, "samples": 50},
    "backend": {"type": "cpu", "threads": 1},
    "tracking": False,
    "callbacks": {"progress": False, "baseline": {"type": "baseline", "label": "<script>alert('label')</script>"}},
}
HEADINGS = [
    "Summary",
    "Filters",
    "Energies and learning rate",
    "Steps of the encoder",
    "Use of the code",
    "Reconstructions",
    "Confusion matrix",
    "Calibration",
    "Certificates",
    "Config",
    "Environment",
]


class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self._heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        self._heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append(data)
            self._heading = False

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.attributes if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run, with its report written."""
    return train({**CONFIG, "output": {"folder": str(tmp_path_factory.mktemp("runs"))}})


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def plain(html: object) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", str(html)).split())


# -- the page ---------------------------------------------------------------------------------------


def test_sections_stand_in_order(page: Page, text: str) -> None:
    assert page.headings == HEADINGS
    assert "could not be made" not in text


def test_page_needs_nothing_from_outside(page: Page, text: str) -> None:
    for _, attributes in page.attributes:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert not page.all("script")
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text.encode()) < 5_000_000


def test_every_picture_says_what_is_seen(page: Page) -> None:
    pictures, charts = page.all("img"), page.all("svg")
    assert len(pictures) >= 2 + 12
    assert len(charts) >= 6
    assert all(len(picture["alt"]) > 20 for picture in pictures)
    assert all(chart["role"] == "img" and len(chart["aria-label"]) > 20 for chart in charts)


def test_ids_are_unique_and_references_lead_somewhere(page: Page, text: str) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.attributes if "id" in attributes)
    assert max(ids.values()) == 1
    referred = set(re.findall(r"(?:href=\"|url\()#([\w-]+)", text))
    assert referred <= set(ids)


def test_what_comes_from_outside_is_escaped(text: str) -> None:
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text  # the config says it


def test_summary_has_the_figures_of_the_record(run: Run, text: str) -> None:
    words = plain(text)
    error = run.record["metrics"]["test/classification/error"]
    baseline = run.record["metrics"]["baseline/logistic-regression/error"]
    assert f"test error {percent(error)}" in words
    assert f"logistic regression, test error {percent(baseline)}" in words
    assert f"energy {number(run.metrics['validation/energy'])} {number(run.metrics['test/energy'])}" in words
    assert "E = ½‖x − D z‖² + 0.01·‖z‖₁ + 0.3·(−log softmax(C z) y ), z ≥ 0".replace(" ", "") in words.replace(
        "\u00a0", ""
    ).replace(" ", "")


def test_a_folder_gives_the_same_page_as_the_run(run: Run, text: str, tmp_path: Path) -> None:
    copy = tmp_path / run.id
    shutil.copytree(run.folder, copy)
    (copy / "report.html").unlink()
    assert write_report(copy) == copy / "report.html"
    assert (copy / "report.html").read_text(encoding="utf-8") == text


def test_a_run_without_its_model_is_reported_from_its_checkpoint(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / run.id
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / "model")
    record = json.loads((copy / "run.json").read_text())
    record |= {"status": "interrupted", "metrics": {}, "error": "stopped by SIGTERM after step 33"}
    (copy / "run.json").write_text(json.dumps(record))
    words = plain(write_report(copy).read_text(encoding="utf-8"))
    assert "stopped by SIGTERM after step 33. The figures are those of its last epoch." in words
    assert f"energy {number(run.metrics['validation/energy'])} energy: reconstruction" in words  # no column for test

    (copy / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="neither a trained model nor a checkpoint"):
        write_report(copy)


class Extra:
    """A callback with a section of its own."""

    @hookimpl
    def report_sections(self, run: Run) -> list[Section]:
        return [Section("Between", f"<p>of {run.name}</p>", order=25)]


class Broken:
    """A callback whose section fails."""

    @hookimpl
    def report_sections(self) -> list[Section]:
        raise ValueError("no <section> today")


@pytest.fixture
def registered(run: Run, request: pytest.FixtureRequest) -> Iterator[object]:
    plugin = request.param()
    run.plugins.register(plugin)
    yield plugin
    run.plugins.unregister(plugin)
    write_report(run)


@pytest.mark.parametrize("registered", [Extra], indirect=True)
def test_sections_of_callbacks_are_sorted_in(run: Run, registered: Extra) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.headings == [*HEADINGS[:2], "Between", *HEADINGS[2:]]


@pytest.mark.parametrize("registered", [Broken], indirect=True)
def test_a_section_that_fails_costs_itself_alone(
    run: Run, registered: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        text = write_report(run).read_text(encoding="utf-8")
    assert Page(text).headings == [*HEADINGS[:-2], "Sections of callbacks", *HEADINGS[-2:]]
    assert "ValueError: no &lt;section&gt; today" in text
    assert "could not be made" in caplog.text


# -- what the sections say ----------------------------------------------------------------------------


def test_confusion_matrix_against_scikit_learn(run: Run) -> None:
    assert run.splits.test is not None
    everything = run.splits.test.read(torch.arange(len(run.splits.test)))
    scores = run.model.predict(everything.x)
    assert scores is not None
    expected = confusion_matrix(everything.fields["y"].numpy(), scores.argmax(1).numpy(), labels=range(10))
    html = str(labels.confusion(Material(run)))
    cells = re.findall(r'<td class="(?:hit|miss|none)"[^>]*>(\d*)</td>', html)
    assert np.array_equal(np.array([int(cell or 0) for cell in cells]).reshape(10, 10), expected)
    errors = [float(share) for share in re.findall(r'<td class="error">([\d.]+) %', html)]
    assert errors == pytest.approx(100 * (1 - expected.diagonal() / expected.sum(1)), abs=0.05)


def test_usage_counts_active_units(run: Run) -> None:
    assert run.splits.test is not None
    code = run.model.encode(run.splits.test.read(torch.arange(len(run.splits.test))).x)
    material = Material(run)
    used = (code != 0).double()
    torch.testing.assert_close(material.observed.frequency, used.mean(0))
    dead = int((used.sum(0) == 0).sum())
    words = plain(codes.usage(material))
    assert f"On average {percent(float(used.mean()))} of a code’s 30 entries" in words
    assert (f"{dead} unit" in words) if dead else "each of the 30 units is active" in words


def test_a_slow_solver_is_looked_at_on_fewer_samples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "SECONDS", -1.0)
    material = Material(run)
    assert material.observed.samples == 100
    assert "of the first 100 test samples for another class" in plain(labels.confusion(material))
    assert "Codes of 100 test samples." in plain(codes.usage(material))


def test_filters_are_the_decoders_columns_most_used_first(run: Run) -> None:
    material = Material(run)
    shown = filters.dictionary(material)
    assert shown is not None
    order = shown.order
    frequency = material.observed.frequency[order]
    assert bool((frequency[:-1] >= frequency[1:]).all())
    html = str(filters.filters(material))
    pixels = decoded_picture(html)
    matrix = run.model.get_parameter("decoder.dictionary").detach()[:, order[0]].reshape(8, 8).numpy()
    factor = pixels.shape[1] // (5 * 9 - 1)  # five columns of 8 pixels and a gap
    first = pixels[::factor, ::factor][:8, :8]
    assert np.abs(first - (128 + 127 * matrix / np.abs(matrix).max())).max() <= 1
    assert "encoder’s rows (feedforward)" in html


def decoded_picture(html: str) -> np.ndarray:
    """The first picture of the page, in grey values."""
    found = re.search(r"data:image/png;base64,([^\"]+)", html)
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def test_certificates_mark_the_tolerance_where_a_solver_stops(tmp_path: Path) -> None:
    energy = {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {"type": "l1", "weight": 0.05},
    }
    sparse = {
        "model": {"decoder": {"type": "linear", "units": 30}},
        "energy": energy,
        "inference": {"type": "fista", "tolerance": 1e-3, "max_iterations": 500},
        "phases": {"learn": {"epochs": 1}},
        "evaluation": {},
        "callbacks": {"progress": False},
        "output": {"folder": str(tmp_path)},
    }
    run = train({**CONFIG, **sparse})
    material = Material(run)
    html = str(codes.certificates(material))
    assert "100 % of 359 codes reached the tolerance, 0.001." in plain(html)
    assert ">tolerance</text>" in html
    certificate = material.observed.certificate
    assert certificate is not None
    assert certificate.kind == "gap"
    assert "During inference" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_certificates_of_an_encoder_name_its_gap_to_the_reference(run: Run) -> None:
    html = str(codes.certificates(Material(run)))
    assert ">tolerance</text>" not in html
    mean = run.metrics["test/amortisation_gap/mean"]
    assert f"reference solver (fista) that goes on from them, relative to the latter’s: {percent(mean)}" in (
        plain(html)
    )


# -- models of other forms ----------------------------------------------------------------------------


class Maps(Decoder):
    """Two maps of 3×4 positions, added up: codes with positions, and no matrix."""

    linear = True

    def code_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *input_shape)

    def build(self, context: Context) -> None:
        self.declare("gain", torch.tensor([1.0, 0.5]))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z * self.gain[:, None, None]).sum(1)


class Copy(Solver[State]):
    """Gives the first map the input, and the second nothing."""

    def init(self, problem: Problem, start: torch.Tensor) -> State:
        return State(start)

    def step(self, problem: Problem, state: State) -> State:
        return State(torch.stack([problem.batch.x, torch.zeros_like(problem.batch.x)], 1))


def material_of(model: Model, x: torch.Tensor, picture_shape: tuple[int, ...] | None, folder: Path) -> Material:
    splits = Splits(TensorSource(x=x), None, TensorSource(x=x), "", None, picture_shape)
    history = SimpleNamespace(path=folder / "metrics.jsonl")
    config = SimpleNamespace(seed=0, evaluation=SimpleNamespace(reference=None))
    record = {"metrics": {}}
    loaded = SimpleNamespace(layers=[SimpleNamespace(name="", config=config)])
    stack = Stack([Layer(model)])
    return Material(
        SimpleNamespace(stack=stack, inputs=splits, history=history, loaded=loaded, config=config, record=record)
    )


@pytest.mark.parametrize("picture_shape", [(3, 4), None])
def test_codes_with_positions_and_inputs_that_are_no_pictures(
    picture_shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    from groundstate_plugins.reconstructions.squared_error import SquaredError

    model = Model(terms={"reconstruction": SquaredError()}, solver=Copy(max_iterations=1), decoder=Maps()).build((3, 4))
    material = material_of(model, torch.randn(20, 3, 4), picture_shape, tmp_path)
    assert material.observed.frequency.tolist() == [1.0, 0.0]
    words = plain(codes.usage(material))
    assert "On average 50.0 % of a code’s 24 entries" in words
    assert "1 unit of 2 is never active. A unit has 12 positions" in words
    assert filters.filters(material) is None
    assert inhibition.inhibition(material) is None
    restored = str(codes.reconstructions(material))
    assert restored.count("<img" if picture_shape else "<svg") == (12 if picture_shape else 4)
    assert "0 %" in restored


class Rivals(Regulariser):
    """Inhibition between the two units of each pair, learned or given."""

    class Config(Regulariser.Config):
        learned: bool = True

    def build(self, context: Context) -> None:
        matrix = torch.zeros(context.units, context.units)
        pairs = torch.arange(0, context.units, 2)
        matrix[pairs, pairs + 1] = matrix[pairs + 1, pairs] = 0.5 + pairs / 10
        bound = NormBound((0, 1), 100.0)
        if self.config.learned:
            self.declare("rivalry", matrix, direction="ascend", constraint=bound)
        else:
            self.register_buffer("rivalry", matrix)

    def energy(self, z: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,ij,bj->b", z.abs(), self.rivalry, z.abs())

    def structure(self) -> Inhibition:
        return Inhibition(matrix=self.rivalry, sparsity=0.0)


@pytest.mark.parametrize("learned", [True, False])
def test_inhibition_shows_its_matrix_and_strongest_pairs(learned: bool, tmp_path: Path) -> None:
    from groundstate_plugins.decoders.linear import LinearDecoder
    from groundstate_plugins.solvers.amortised import Amortised

    class Ones(Encoder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_ones(len(x), 6)

    model = Model(
        terms={"rivals": Rivals(learned=learned)},
        solver=Amortised(),
        encoder=Ones(),
        decoder=LinearDecoder(units=6),
    ).build((4,))
    material = material_of(model, torch.randn(20, 4), (2, 2), tmp_path)
    html = str(inhibition.inhibition(material))
    words = plain(html)
    assert "up to the largest, 0.9; 20.0 % of all pairs are above 0, and the largest sum of a row is 0.9." in words
    assert ("learned by ascent" in words) == learned
    assert html.count("<img") == 2
    assert "filters of the 3 pairs of units" in html
    # the order in which the matrix stands says itself where the pairs are
    shown = filters.dictionary(material)
    assert shown is not None
    assert ("most used" in shown.reason) == learned
    alpha = Image.open(io.BytesIO(base64.b64decode(re.findall(r"base64,([^\"]+)", html)[0]))).convert("RGBA")
    strength = np.asarray(alpha)[:, :, 3][:: alpha.height // 6, :: alpha.width // 6][:6, :6]
    order = [4, 5, 2, 3, 0, 1] if learned else range(6)
    expected = model.energy.terms["rivals"].rivalry.detach().numpy()[np.ix_(order, order)]
    assert np.abs(strength - 255 * np.sqrt(expected / 0.9)).max() <= 1


def test_learned_inhibition_is_sorted_into_blocks() -> None:
    block = torch.kron(torch.eye(4), torch.ones(5, 5)) - torch.eye(20)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    order = inhibition.seriation(block[shuffled][:, shuffled])
    assert sorted(order.tolist()) == list(range(20))
    groups = (shuffled[order] // 5).view(4, 5)
    assert bool((groups == groups[:, :1]).all())


# -- pictures, curves and words ------------------------------------------------------------------------


def test_tiles_keep_zero_grey_and_gaps_apart() -> None:
    rows = torch.tensor([[0.0, 1.0, -2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 0.0]])
    full = sheet(signed_tiles(as_pictures(rows, (2, 2))), 2)
    assert full.shape == (5, 5)
    assert full[:2, :2].tolist() == [[128, 192], [1, 255]]
    assert set(full[2].tolist()) | set(full[:, 2].tolist()) | set(full[3:, 3:].flatten().tolist()) == {0}
    colours = as_pictures(torch.arange(24.0).reshape(2, 12), (3, 2, 2))
    assert colours.shape == (2, 2, 2, 3)
    assert colours[0, 0, 1].tolist() == [1.0, 5.0, 9.0]
    assert as_pictures(torch.arange(8.0).reshape(1, 8), (2, 2, 2)).tolist() == [[[2.0, 3.0], [4.0, 5.0]]]


def test_validation_energy_counts_the_terms_that_act() -> None:
    held = {"validation/energy": 9.0, "validation/energy/a": 1.0, "validation/energy/b": 8.0}
    records = [
        Record(1, 0.0, "first", "step", {"energy": 2.0, "energy/a": 2.0}),
        Record(2, 0.0, "first", "epoch", held),
        Record(3, 0.0, "second", "step", {"energy": 9.0, "energy/a": 2.0, "energy/b": 7.0}),
        Record(4, 0.0, "second", "epoch", held),
        Record(4, 0.0, "second", "final", {"test/energy": 3.0}),
    ]
    timeline = Timeline.of(records)
    assert [(phase.name, phase.first, phase.last) for phase in timeline.phases] == [("first", 0, 2), ("second", 2, 4)]
    assert [part.tolist() for part in timeline.validation_energy()] == [[2.0, 4.0], [1.0, 9.0]]
    assert [part.tolist() for part in timeline.validation("energy/b", "b")] == [[4.0], [8.0]]
    assert [values.tolist() for _, values in timeline.training("energy")] == [[2.0], [9.0]]


def test_numbers_as_a_person_reads_them() -> None:
    said = [number(value) for value in (0, 1, -0.5, 12345.67, 0.012344, 1.5e-7, -2e9, 1e-9, float("inf"))]
    assert said == ["0", "1", "−0.5", "12,346", "0.01234", "1.5·10⁻⁷", "−2·10⁹", "10⁻⁹", "∞"]
    shares = [percent(share) for share in (0, 1, 0.9721, 0.01389, 0.09999, 0.00004, 1.243)]
    assert shares == ["0 %", "100 %", "97.2 %", "1.39 %", "10.0 %", "0.004 %", "124.3 %"]
    assert [seconds(value) for value in (4.25, 185, 7380)] == ["4.2 s", "3 min 5 s", "2 h 3 min"]


def test_formula_ends_with_the_conditions_of_its_terms() -> None:
    terms = [(1.0, "½‖x − D z‖²"), (0.1, "‖z‖₁, z ≥ 0"), (0.5, "a + b"), (2.0, "−log p"), (1.0, "|z|ᵀS|z|, z ≥ 0")]
    assert written(terms) == "½‖x − D z‖² + 0.1·‖z‖₁ + 0.5·(a + b) + 2·(−log p) + |z|ᵀS|z|, z ≥ 0"


# -- in a browser ---------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(run: Run, text: str, width: int, scheme: str) -> None:
    look(run.folder / "report.html", width, scheme, HEADINGS, pictures=14, charts=12)


def look(page: Path, width: int, scheme: str, headings: list[str], *, pictures: int, charts: int) -> None:
    """Open a page and check what a person sees; it asks for nothing from outside and has nothing to complain of."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe to check accessibility")
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("needs Chromium: none on PATH, and playwright has installed none")
        browser = playwright.chromium.launch(executable_path=found, args=QUIET.split())
        view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        said: list[str] = []
        asked: list[str] = []
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("request", lambda request: asked.append(request.url))
        view.goto(page.as_uri())
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
        assert view.locator("h1").inner_text() == "small"
        assert view.locator("h2").all_inner_texts() == headings
        images = view.evaluate("Array.from(document.images, i => [i.naturalWidth, i.getBoundingClientRect().width])")
        drawn = view.evaluate("Array.from(document.querySelectorAll('svg'), s => s.getBoundingClientRect().height)")
        assert len(images) >= pictures
        assert min(min(sizes) for sizes in images) > 0
        assert len(drawn) >= charts
        assert min(drawn) > 100
        assert view.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        contrast = view.evaluate(CONTRAST)
        assert len(contrast) > 150
        assert {text: ratio for text, ratio in contrast.items() if ratio < 4.5} == {}
        report = axe.Axe().run(view)  # WCAG 2 A and AA, and axe's best practices: landmarks, headings, tables
        assert report.violations_count == 0, report.generate_report()
        assert len(report.response["passes"]) > 15
        browser.close()


CONTRAST = """() => {
    const numbers = colour => {
        const [, kind, inside] = colour.match(/^(\\w+)\\((.*)\\)$/);
        const found = inside.match(/[\\d.]+/g).map(Number);
        return kind === 'color' ? found : [found[0] / 255, found[1] / 255, found[2] / 255, ...found.slice(3)];
    };
    const light = colour => {
        const [r, g, b] = numbers(colour).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        const colour = getComputedStyle(element).backgroundColor;
        return numbers(colour)[3] === 0 ? ground(element.parentElement) : colour;
    };
    const found = {};
    for (const element of document.querySelectorAll('body *')) {
        const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join('').trim();
        if (!text) continue;
        const style = getComputedStyle(element);
        const pair = [light(element instanceof SVGElement ? style.fill : style.color), light(ground(element))];
        found[`${element.tagName}.${element.className}: ${text.slice(0, 40)}`] =
            (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }
    return found;
}"""
"""The contrast (WCAG) of every text of the page with what it stands on."""
