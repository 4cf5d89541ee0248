"""The models folder `laplace`, where posteriors are kept, and the names of its files."""

from pathlib import Path

import folder_paths

__all__ = ["FOLDER", "forget_list", "path_to_save", "register", "saved_posteriors"]

FOLDER = "laplace"

LONGEST_NAME = 200  # bytes of UTF-8; file systems allow 255, and `.safetensors` is added
MOST_FOLDERS = 10

FORBIDDEN = frozenset('<>:"|?*')
"""Characters that Windows refuses in names, beside the separators and control characters."""

RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [device + digit for device in ("COM", "LPT") for digit in "123456789\xb9\xb2\xb3"]
)
"""Names that Windows gives to devices, whatever ending follows."""


def register() -> None:
    """Tells the host of the folder, as the first among linked folders of that name."""
    path = str(Path(folder_paths.models_dir) / FOLDER)
    folder_paths.add_model_folder_path(FOLDER, path, is_default=True)


def saved_posteriors() -> list[str]:
    """The posteriors that can be loaded.

    Returns:
        Names relative to the folder, with `.safetensors`.
    """
    return [
        name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")
    ]


def forget_list() -> None:
    """Makes the host read the folder anew, whose list may be of the same tick of the clock."""
    folder_paths.filename_list_cache.pop(FOLDER, None)


def path_to_save(filename: str) -> Path:
    """Where a posterior of that name is saved: in models/laplace, linked folders included.

    Names that some system refuses are refused on all, so that workflows and folders can move.

    Arguments:
        filename: With or without `.safetensors`; folders are separated by `/` or `\\`.

    Returns:
        A path that ends with `.safetensors`, whose folder may have to be made.

    Raises:
        ValueError: If the name leads out of the folder, or is none that every system can store.
    """
    parts = filename.strip().replace("\\", "/").removesuffix(".safetensors").split("/")
    if not parts[0] or parts[-1] in ("", ".") or ".." in parts:
        raise ValueError(
            f"{filename!r:.80} does not lie in the folder models/{FOLDER}. Give a plain name."
        )
    parts = [part for part in parts if part not in ("", ".")]
    problem = next(filter(None, map(_problem, parts)), None)
    if len(parts) > MOST_FOLDERS + 1:
        problem = f"it has more than {MOST_FOLDERS} folders"
    if problem:
        raise ValueError(
            f"{filename!r:.80} cannot be the name of a file in models/{FOLDER} on every system: "
            f"{problem}. Give a plain name of letters, digits, - and _."
        )
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.safetensors")


def _problem(part: str) -> str | None:
    """Why a file or folder cannot have that name on every system; None where it can."""
    if any(character in FORBIDDEN or ord(character) < 32 for character in part):
        return 'it has one of < > : " | ? * or a control character'
    if any(0xD800 <= ord(character) < 0xE000 for character in part):
        return "it has half of a character"
    if part[-1] in ". ":
        return "a dot or a space stands at the end"
    if part.partition(".")[0].rstrip().upper() in RESERVED:
        return f"{part[:20]} is a device on Windows"
    if part == ".git":
        return "Load Laplace does not look into .git"
    if len(part.encode()) > LONGEST_NAME:
        return f"it has more than {LONGEST_NAME} bytes between two separators"
    return None
