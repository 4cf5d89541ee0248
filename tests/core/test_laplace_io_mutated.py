"""A posterior file that was changed is refused in a sentence, or loads exactly what was saved."""

import json
import math
import random
import struct

import pytest
import torch

from bayesdiff_core import laplace_io
from bayesdiff_core.laplace import GaussNewton, LaplacePosterior
from bayesdiff_core.laplace_io import load_posterior, save_posterior
from bayesdiff_core.last_layer import fingerprint

FIELDS = (
    *("prior_precision", "noise_variance", "rows", "positions"),
    *("log_evidence", "fingerprint"),
)

NOT_NUMBERS = (None, True, False, "1.0", "", [], [1.0], {}, {"a": 1})
NOT_FINITE = (math.inf, -math.inf)
WRONG = {
    "prior_precision": (*NOT_NUMBERS, *NOT_FINITE, math.nan, 0, -1.0, 1e-30, 1e308, 10**400),
    "noise_variance": (*NOT_NUMBERS, *NOT_FINITE, math.nan, 0.0, -0.5, 1e-30, 1e308, 10**400),
    "rows": (*NOT_NUMBERS, *NOT_FINITE, math.nan, 0, -2, 2.0, 2.5, 1e3, 3, 10**12, 10**400),
    "positions": (*NOT_NUMBERS, *NOT_FINITE, math.nan, 0, -40, 40.0, 1e3, 10**30, 10**400),
    "log_evidence": (*NOT_NUMBERS, *NOT_FINITE, 10**400),
    "fingerprint": (None, True, 1, 1.5, [], ["a"], {}, "a\x00b", "\ud800", "a" * 100_000,
                    "out.2:2x6:0123456789abcdef"),
}  # fmt: skip


def fitted(seed: int, structure: str = "full") -> LaplacePosterior:
    generator = torch.Generator().manual_seed(seed)
    sums = GaussNewton.zeros(5, structure)
    sums.update([torch.randn(40, 5, generator=generator)], torch.randn(40, generator=generator))
    weights = torch.randn(2, 5, generator=generator)
    return sums.posterior(weights, fingerprint=fingerprint("out.2", weights))


def same(one: LaplacePosterior, other: LaplacePosterior) -> bool:
    """Equal to the bit, types included."""
    fields = [[(type(getattr(p, f)), getattr(p, f)) for f in FIELDS] for p in (one, other)]
    return (
        fields[0] == fields[1]
        and one.precision.dtype == other.precision.dtype
        and torch.equal(one.precision, other.precision)
    )


class Parts:
    """A file taken apart, to be put together with one thing changed."""

    def __init__(self, content: bytes) -> None:
        (size,) = struct.unpack("<Q", content[:8])
        self.header = json.loads(content[8 : 8 + size])
        self.numbers = content[8 + size :]
        self.metadata = self.header["__metadata__"]
        self.fields = json.loads(self.metadata["posterior"])

    def file(self, **changes) -> bytes:
        """Changes: `fields`, `metadata`, `precision` (of the header), `header`, `numbers`."""
        fields = changes.get("fields", self.fields)
        text = fields if isinstance(fields, str) else json.dumps(fields)
        metadata = changes.get("metadata", {**self.metadata, "posterior": text})
        precision = {**self.header["precision"], **changes.get("precision", {})}
        header = changes.get("header", {"__metadata__": metadata, "precision": precision})
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(head)) + head + changes.get("numbers", self.numbers)

    def first_version(self) -> "Parts":
        """The same file as version 1 wrote it, without a checksum."""
        old = Parts(self.file())
        old.metadata.pop("sha256", None)
        old.metadata["version"] = "1"
        return old


def outcome(path, content: bytes):
    """The posterior of a file, or None where it is refused; any other error is not caught."""
    path.unlink(missing_ok=True)  # a file cut to nothing is slow on some disks
    path.write_bytes(content)
    try:
        return load_posterior(path)
    except laplace_io.PosteriorFileError as error:
        text = str(error)
        assert str(path) in text and len(text) < 1000
        assert "it again" in text or "save one with LaplaceFit" in text, text
        text.encode()
        return None


@pytest.fixture(params=["full", "diag"])
def saved(request, tmp_path):
    """A posterior and the content of its file."""
    posterior = fitted(0, request.param)
    path = tmp_path / "saved.safetensors"
    save_posterior(posterior, path)
    return posterior, path.read_bytes()


def without(mapping: dict, key: str) -> dict:
    return {name: value for name, value in mapping.items() if name != key}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damaged(content: bytes, other: bytes, chance: random.Random):
    """Files as disks and networks leave them: cut, flipped, filled with zeros, mixed."""
    yield from (content[:length] for length in range(len(content)))
    yield from (content + chance.randbytes(size) for size in (1, 4, 8, 100))
    bits = 8 * len(content)
    yield from (flipped(content, bit) for bit in range(bits - 8 * 100, bits))
    yield from (flipped(content, chance.randrange(bits)) for _ in range(600))
    for _ in range(100):
        start = chance.randrange(len(content))
        stop = min(len(content), start + chance.randrange(1, 64))
        yield content[:start] + bytes(stop - start) + content[stop:]
        yield content[:start] + chance.randbytes(stop - start) + content[stop:]
        yield content[:start] + other[start:]
        yield other[:start] + content[start:]


def edited(parts: Parts):
    """Files with one entry of their JSON changed, missing or added, at every level."""
    for name, values in WRONG.items():
        yield from (parts.file(fields={**parts.fields, name: value}) for value in values)
        yield parts.file(fields=without(parts.fields, name))
    yield parts.file(fields={**parts.fields, "precision": 1})
    yield parts.file(fields={**parts.fields, "_factors": {"cpu": 1}})
    deep = "[" * 100_000
    for text in ("", "null", "[]", "3", "{", '"text"', deep, '{"a":' * 50_000, "\ud800"):
        yield parts.file(fields=text)
        yield parts.file(header=text.encode(errors="surrogatepass"))
    for name in parts.metadata:
        yield parts.file(metadata=without(parts.metadata, name))
        for value in (None, 1, 2, True, [], {}, "", "0", "3", "9", "02", "2.0", "Ⅱ", "x" * 1000):
            yield parts.file(metadata={**parts.metadata, name: value})
    for value in (None, [], "text", 3):
        yield parts.file(metadata=value)
        yield parts.file(header={**parts.header, "precision": value})
        yield parts.file(header={**parts.header, "another": value})
    yield parts.file(header=without(parts.header, "__metadata__"))
    yield parts.file(header=without(parts.header, "precision"))
    yield parts.file(header={"__metadata__": parts.metadata, "other": parts.header["precision"]})
    for name in parts.header["precision"]:
        yield parts.file(
            header={**parts.header, "precision": without(parts.header["precision"], name)}
        )
    size = len(parts.numbers)
    for shape in ([], [size // 4], [1, size // 4], [5, 5, 1], [-5, -5], [5.0, 5], ["5", 5], [0],
                  [True] * 2, [10**30, 10**30], None, "5", [[5], [5]], [size]):  # fmt: skip
        yield parts.file(precision={"shape": shape})
    for dtype in ("F64", "F16", "BF16", "I8", "U8", "BOOL", "I32", "f32", "", None, 3, ["F32"]):
        yield parts.file(precision={"dtype": dtype})
    for offsets in ([], [0], [0, size - 4], [4, size], [0, size + 4], [size, 0], [0, 10**30],
                    [0, size, 0], ["0", size], None, {}, -1):  # fmt: skip
        yield parts.file(precision={"data_offsets": offsets})
    for length in (0, 1, 7, 2**20, 2**31, 2**63, 2**64 - 1):
        yield struct.pack("<Q", length) + parts.file()[8:]


def test_what_loads_is_what_was_saved(saved, tmp_path):
    """Over all damages and edits of a file."""
    posterior, content = saved
    other = tmp_path / "other.safetensors"
    save_posterior(fitted(1, posterior.structure), other)
    files = [*damaged(content, other.read_bytes(), random.Random(0)), *edited(Parts(content))]
    assert len(files) > 2000
    kept = 0
    for number, file in enumerate(files):
        loaded = outcome(tmp_path / "mutated.safetensors", file)
        assert loaded is None or same(loaded, posterior) or file == other.read_bytes(), number
        kept += loaded is not None
    assert kept < 0.1 * len(files)


def test_the_first_version_is_read_and_looked_at(saved, tmp_path):
    """It has no checksum: what no fit gives is refused, and nothing fails without a sentence."""
    posterior, content = saved
    path = tmp_path / "first.safetensors"
    parts = Parts(content).first_version()
    assert same(outcome(path, parts.file()), posterior)
    for file in damaged(parts.file(), content, random.Random(1)):
        outcome(path, file)
    for file in edited(parts):
        loaded = outcome(path, file)
        assert loaded is None or same(loaded, posterior)


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_fields_are_refused_with_the_right_checksum(field, saved, tmp_path):
    posterior, content = saved
    for value in WRONG[field]:
        if field == "fingerprint" and value == "out.2:2x6:0123456789abcdef":
            continue
        changed = fitted(0, posterior.structure)
        setattr(changed, field, value)
        parts = Parts(content)
        parts.metadata["sha256"] = laplace_io._checksum(changed)
        file = parts.file(fields={**parts.fields, field: value})
        assert outcome(tmp_path / "forged.safetensors", file) is None, value


def matrices():
    """Matrices (5, 5) that are no precision, each with what is wrong with it."""
    good = fitted(0).precision
    for name, row, column, value in (
        ("nan", 0, 4, math.nan),
        ("infinite", 2, 2, math.inf),
        ("asymmetric", 0, 4, float(good[0, 4]) + 0.1 * float(good[0, 0])),
        ("negative diagonal", 3, 3, -float(good[3, 3])),
    ):
        changed = good.clone()
        changed[row, column] = value
        yield name, changed
    coupled = good.clone()
    coupled[0, 1] = coupled[1, 0] = 2 * (good[0, 0] * good[1, 1]).sqrt()
    yield "a correlation of two", coupled
    yield "zero", torch.zeros(5, 5)
    yield "negative", -good
    yield "negative diag", -good.diagonal().clone()
    yield "diag with nan", torch.tensor([1.0, math.nan])


@pytest.mark.parametrize("matrix", [pytest.param(matrix, id=name) for name, matrix in matrices()])
def test_matrices_that_no_fit_gives_are_refused(matrix, tmp_path):
    path = tmp_path / "file.safetensors"
    save_posterior(fitted(0), path)
    parts = Parts(path.read_bytes()).first_version()
    numbers = matrix.numpy().tobytes()
    entry = {"shape": list(matrix.shape), "data_offsets": [0, len(numbers)]}
    assert outcome(path, parts.file(precision=entry, numbers=numbers)) is None
    posterior = fitted(0)
    posterior.precision = matrix
    with pytest.raises(laplace_io.PosteriorFileError, match="not saved"):
        save_posterior(posterior, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_layer_of_other_size_is_named(tmp_path):
    """The fingerprint says how many rows and features the layer has."""
    posterior = fitted(0)
    posterior.rows = 3
    with pytest.raises(laplace_io.PosteriorFileError, match="2 outputs of 5 features"):
        save_posterior(posterior, tmp_path / "file.safetensors")


def test_rounding_of_a_fit_is_no_damage(tmp_path):
    """Dead and tiny features, single positions, scales far apart."""
    generator = torch.Generator().manual_seed(0)
    for positions, scale in ((1, 1.0), (3, 1e-20), (50, 1e6), (2000, 1.0)):
        phi = torch.randn(positions, 40, generator=generator) * scale
        phi[:, 0], phi[:, 1], phi[:, 2] = 0, 1, phi[:, 3]
        phi[:, 4] *= 1e-22
        sums = GaussNewton.zeros(40, "full")
        sums.update([phi], torch.randn(positions, generator=generator))
        posterior = sums.posterior(torch.randn(2, 40, generator=generator))
        path = tmp_path / "file.safetensors"
        save_posterior(posterior, path)
        assert same(load_posterior(path), posterior)


def test_the_file_in_use_may_be_overwritten(saved, tmp_path):
    posterior, content = saved
    path = tmp_path / "saved.safetensors"
    loaded = load_posterior(path)
    with open(path, "r+b") as file:
        file.write(bytes(len(content)))
    assert same(loaded, posterior)
