"""Configuration of TensorFlow Serving: its files, its options and the command that starts it."""

from __future__ import annotations

import os
import pathlib
import shlex

from tfmtl._checks import require, require_positive_int
from tfmtl._staging import replace_file
from tfmtl.serving.versions import versions_in

_BATCHING = """\
max_batch_size {{ value: {request} }}
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: {size} }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: {threads} }}
max_enqueued_batches {{ value: 1000 }}
"""
_MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


MAX_REQUEST = 4096
"""The default largest number of rows of one request."""

BATCHING = "batching_params.pbtxt"
"""The file in a version's folder from which TensorFlow Serving reads how to batch its requests."""

OPTIONS = "--enable_batching --enable_per_model_batching_params"
"""The options with which a server reads the file `BATCHING` of every version that it loads."""


def write_batching(
    version: pathlib.Path, max_batch_size: int = 64, threads: int = 4, max_request: int = MAX_REQUEST
) -> None:
    """Write the settings of request batching into the folder of a version.

    Args:
        version: folder of a SavedModel.
        max_batch_size, threads, max_request: as in `write_server_config`.
    """
    text = _batching(max_batch_size, threads, max_request)
    replace_file(version / BATCHING, lambda file: file.write(text.encode()))


def _batching(size: int, threads: int, request: int) -> str:
    """Return the text of the proto `BatchingParameters`.

    `pad_variable_length_inputs` stays false: the server pads a tensor with its first value, which would add the first
    id of a request to its shorter lists (AddPadding in tensorflow_serving/batching/batching_util.h).
    """
    require_positive_int(max_batch_size=size, threads=threads, max_request=request)
    rule = "`max_request` must be at least `max_batch_size`, since a batch may be one request."
    require(request >= size, rule, max_request=request, max_batch_size=size)
    return _BATCHING.format(size=size, threads=threads, request=request)


def model_name(directory: str | os.PathLike[str]) -> str:
    """Return the name under which a server offers the model of a folder: that of the folder.

    Raises:
        ValueError: if the folder has no name, or one that no request can hold, or TensorFlow cannot read the path.

    Example:
        >>> model_name("saved_models/../saved_models/shop/.")
        'shop'
    """
    path = os.fspath(directory)
    name = pathlib.Path(os.path.normpath(pathlib.Path.cwd() / directory)).name  # a link has a name too
    valid = name != "" and name.isprintable() and ":" not in name
    rule = "The name of the folder becomes that of the model; it must be printable and have no colon."
    require(valid, rule, directory=path)
    readable = "[" not in path and "\\" not in path  # TensorFlow takes the path for a pattern
    require(readable, "TensorFlow reads no model from a path with `[` or a backslash; rename it.", directory=path)
    return name


def server_command(name: str, base_path: str = "/models") -> str:
    """Return the command that serves the newest version of one model, quoted for a shell.

    Example:
        >>> print(server_command("shop"))
        tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=shop --model_base_path=/models/shop
          --enable_batching --enable_per_model_batching_params
    """
    ports = "--port=8500 --rest_api_port=8501"
    model = shlex.join([f"--model_name={name}", f"--model_base_path={base_path}/{name}"])
    return f"tensorflow_model_server {ports} {model} {OPTIONS}"


def write_server_config(
    directory: str | os.PathLike[str],
    *,
    base_path: str = "/models",
    max_batch_size: int = 64,
    threads: int = 4,
    max_request: int = MAX_REQUEST,
) -> str:
    """Write `models.config`, `batching.config` and `monitoring.config` for all models in a folder, and replace links.

    Args:
        directory: the folder that holds one folder per model; models without a version are left out.
        base_path: path of that folder on the server.
        max_batch_size: largest number of rows, from all clients, in one batch; larger requests are split.
        threads: number of batches computed at the same time; start with the number of cores.
        max_request: largest number of rows of one request; the server refuses larger ones.

    Returns:
        The options of `tensorflow_model_server` that name the files, quoted for a shell.

    Raises:
        ValueError: if no model has a version, or a name or a number is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (pathlib.Path(folder) / "shop" / "1").mkdir(parents=True)
        ...     options = write_server_config(folder)
        ...     print((pathlib.Path(folder) / "models.config").read_text())
        model_config_list {
          config { name: "shop" base_path: "/models/shop" model_platform: "tensorflow" }
        }
        <BLANKLINE>
    """
    batching = _batching(max_batch_size, threads, max_request)
    folder = pathlib.Path(directory)
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    models = [model_name(path) for path in children if any(v.is_dir() for v in versions_in(path).values())]
    require(bool(models), f"No model in {folder} has a version; export one first.")
    configs = [
        f'  config {{ name: "{_escaped(name)}" base_path: "{_escaped(f"{base_path}/{name}")}" '
        'model_platform: "tensorflow" }\n'
        for name in models
    ]
    files = {
        "models.config": f"model_config_list {{\n{''.join(configs)}}}\n",
        "batching.config": batching,
        "monitoring.config": _MONITORING,
    }
    for name, text in files.items():
        replace_file(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return shlex.join(
        [
            f"--model_config_file={base_path}/models.config",
            "--model_config_file_poll_wait_seconds=60",
            "--enable_batching",
            f"--batching_parameters_file={base_path}/batching.config",
            f"--monitoring_config_file={base_path}/monitoring.config",
        ]
    )


def _escaped(text: str) -> str:
    """Return a string as the text form of protocol buffers writes it between quotes."""
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in os.fsencode(text))
