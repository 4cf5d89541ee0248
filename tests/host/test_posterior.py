"""LaplaceFit and the posteriors it writes."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.host.conftest import noise


def test_fit_reports_what_it_did(scene):
    result = scene.host.call(
        "LaplaceFit", model=scene.model, draws=3, structure="auto", seed=0,
        latents={"samples": noise(scene.latent["samples"].shape, 1)}, conditioning=scene.positive,
    )  # fmt: skip
    posterior, report = result.outputs
    # 16 channels of 3x3, a bias, two channels out; three draws of three latents of 16x16.
    assert (posterior.features, posterior.rows) == (145, 2)
    assert posterior.positions == 3 * 3 * 256
    for words in ("network.out.2", "145 features", "structure: full", "2304 positions"):
        assert words in report
    for words in ("noise variance", "prior precision", "log evidence", posterior.fingerprint):
        assert words in report


def test_diag_is_the_diagonal_of_full(scene):
    full, diag = scene.fit(structure="full"), scene.fit(structure="diag")
    assert (full.structure, diag.structure) == ("full", "diag")
    torch.testing.assert_close(full.precision.diagonal(), diag.precision, rtol=1e-4, atol=1e-4)
    assert full.noise_variance == pytest.approx(diag.noise_variance)


def test_gram_is_that_of_the_layers_inputs(scene):
    """Against hooks of our own on the network, over the same noisy latents."""
    network = scene.model.model.diffusion_model.network
    inputs = []
    handle = network.out[2].register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    try:
        posterior = scene.fit(draws=3)
    finally:
        handle.remove()
    patches = [torch.nn.functional.unfold(x, 3, padding=1).transpose(1, 2) for x in inputs[-3:]]
    phi = torch.cat(patches).flatten(0, 1).double()
    phi = torch.cat([phi, torch.ones(len(phi), 1)], 1)
    gram = phi.T @ phi / posterior.noise_variance
    torch.testing.assert_close(posterior.precision.double(), gram, rtol=1e-4, atol=1e-3)


def test_prompts_and_latents_go_in_step(scene, monkeypatch):
    """Also where the batch is fitted in parts, and where one prompt stands for all."""
    monkeypatch.setattr(scene.host.module("nodes.host.fit"), "CHUNK", 2)
    network, seen = scene.model.model.diffusion_model.network, []
    handle = network.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    try:
        posterior = scene.fit(draws=2)
        scene.fit(draws=1, conditioning=[[scene.positive[0][0][:1], {}]])
    finally:
        handle.remove()
    assert posterior.positions == 2 * 3 * 256
    labels = (scene.positive[0][0][..., 0] - 1).long()
    assert torch.equal(torch.cat(seen[-6:-2]), torch.cat([labels, labels]))
    assert torch.equal(torch.cat(seen[-2:]), labels[:1].expand(3, -1))


def test_fit_decides_by_its_seed_alone(scene):
    first, again, other = scene.fit(seed=3), scene.fit(seed=3), scene.fit(seed=4)
    assert torch.equal(first.precision, again.precision)
    assert not torch.equal(first.precision, other.precision)


def listed(scene):
    """The names that Load Laplace offers."""
    loader = scene.host.node_classes["BayesDiffLoadLaplace"]
    options = loader.INPUT_TYPES()["required"]["filename"]
    return options[1].get("options", options[0])


def save(scene, laplace, filename):
    scene.host.call("BayesDiffSaveLaplace", laplace=laplace, filename=filename)


@pytest.fixture
def folder(scene):
    """The folder models/laplace; it is left as it was found."""
    path = scene.host.base_directory / "models" / "laplace"
    path.mkdir(exist_ok=True)
    before = set(path.iterdir())
    yield path
    for left in set(path.iterdir()) - before:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def test_a_saved_posterior_is_read_back(scene, laplace):
    save(scene, laplace, "folder/mine")
    (name,) = [name for name in listed(scene) if "mine" in name]
    (loaded,) = scene.host.call("BayesDiffLoadLaplace", filename=name).outputs
    assert torch.equal(loaded.precision, laplace.precision)
    assert loaded.fingerprint == laplace.fingerprint
    samples, uncertainty = scene.uncertain(laplace=loaded)
    assert "posterior" in uncertainty.names


def test_files_are_written_to_their_folder_only(scene, laplace, folder):
    for name in ("../mine", "a/../../mine", "..\\mine", "/elsewhere/mine", "\\mine", "", ".", "a/",
                 ".safetensors"):  # fmt: skip
        with pytest.raises(ValueError, match="models/laplace. Give a plain name"):
            save(scene, laplace, name)
    assert not list(folder.glob("a"))


def test_a_saved_file_is_listed_at_once(scene, laplace, folder):
    """Under a name without detours, however soon the list was read before."""
    for number in range(30):
        before = listed(scene)
        save(scene, laplace, f"soon {number}")
        assert set(listed(scene)) == {*before, f"soon {number}.safetensors"}
    for name, plain in (
        *(("way/./b", "way/b"), ("way//c", "way/c"), ("./d", "d"), ("way\\e", "way/e")),
        *((" f.safetensors ", "f"), ("way/naïve ☃ 模型", "way/naïve ☃ 模型"), ("v1.5", "v1.5")),
    ):
        save(scene, laplace, name)
        assert str(Path(f"{plain}.safetensors")) in listed(scene)


BAD_NAMES = (
    *("CON", "nul", "aux.old", "Com1", "lpt9.x.y", "COM\xb2", "conin$", "folder/PRN", "CON/mine"),
    *("x:stream", "C:\\mine", "what?", "a*", "<a", "a>", 'a"b', "a|b", "a\0b", "a\nb", "tab\tb"),
    *("dot.", "dot./mine", "space /mine", "dots...", "\ud800", "x\udfff/mine", ".git/mine"),
    *("a" * 201, "é" * 101, "b" * 300 + "/mine", "a/" * 11 + "mine", "a/" * 1500 + "mine"),
)


def test_names_that_some_system_refuses_are_refused(scene, laplace, folder):
    before = sorted(folder.rglob("*"))
    for name in BAD_NAMES:
        with pytest.raises(ValueError, match="on every system: .* Give a plain name") as caught:
            save(scene, laplace, name)
        str(caught.value).encode()
        assert len(str(caught.value)) < 400
    assert sorted(folder.rglob("*")) == before


def test_long_and_deep_names_are_saved(scene, laplace, folder):
    for name in ("a" * 200, "é" * 100, "a/" * 10 + "mine", "console", "com10", "nullify"):
        save(scene, laplace, name)
        assert str(Path(f"{name}.safetensors")) in listed(scene)


def test_a_linked_folder_is_saved_to(scene, laplace, folder, tmp_path):
    try:
        (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("no links on this system")
    save(scene, laplace, "linked/mine")
    assert (tmp_path / "mine.safetensors").is_file()
    name = str(Path("linked/mine.safetensors"))
    assert name in listed(scene)
    (loaded,) = scene.host.call("BayesDiffLoadLaplace", filename=name).outputs
    assert torch.equal(loaded.precision, laplace.precision)


def test_what_stands_in_the_way_is_named(scene, laplace, folder):
    (folder / "taken.safetensors").mkdir()
    (folder / "file").write_bytes(b"")
    for name in ("taken", "file/mine"):
        with pytest.raises(ValueError, match="cannot be written .*take another name") as caught:
            save(scene, laplace, name)
        assert str(folder) in str(caught.value)


def test_a_damaged_file_is_refused_in_a_sentence(scene, laplace, folder):
    save(scene, laplace, "damaged")
    path = folder / "damaged.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged.*Fit it again"):
        scene.host.call("BayesDiffLoadLaplace", filename=path.name)


def test_a_lora_makes_it_another_layer(scene, laplace):
    """Weights are read with the patches of the ModelPatcher in effect."""
    patched = scene.model.clone()
    key = "diffusion_model.network.out.2.weight"
    weight = scene.model.model.diffusion_model.network.out[2].weight
    patched.add_patches({key: ("diff", (0.1 * noise(weight.shape, 1),))})
    with pytest.raises(ValueError, match="Run LaplaceFit on the model you sample with"):
        scene.uncertain(model=patched, laplace=laplace)
    other = scene.fit(model=patched)
    scene.uncertain(model=patched, laplace=other)
    scene.uncertain(laplace=laplace)
