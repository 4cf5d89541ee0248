"""The models folder `laplace`, where posteriors are kept."""

from pathlib import Path

import folder_paths

__all__ = ["FOLDER", "register", "saved_posteriors"]

FOLDER = "laplace"


def register() -> None:
    path = str(Path(folder_paths.models_dir) / FOLDER)
    folder_paths.add_model_folder_path(FOLDER, path, is_default=True)


def saved_posteriors() -> list[str]:
    return [
        name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")
    ]
