"""The generator for other engines, written to a file that inference.py, realtime.py and app.py take
as --checkpoint_path where there is no torch.

    python -m backends export --checkpoint_path checkpoints/wav2lip.pth --out wav2lip.onnx
    python -m backends export --checkpoint_path checkpoints/wav2lip.pth --out wav2lip.xml

ONNX has the model's own inputs and is checked against PyTorch (onnx.py); OpenVINO's .xml and .bin
are the fastest on a CPU, bytes to bytes.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from errors import InputError, require_file, run_cli

# torch and ONNX are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backends", description="The generator for other engines."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write ONNX, checked against PyTorch, or OpenVINO")
    export.add_argument("--checkpoint_path", required=True, help="generator weights")
    export.add_argument("--out", required=True, help="file to write, .onnx or .xml")
    export.add_argument(
        "--int8",
        action="store_true",
        help=".xml in 8 bits: the network that inference.py --int8 has made of these weights",
    )
    export.add_argument(
        "--cache_dir", default="user", help="where that lies; default: the user's cache folder"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    require_file(args.checkpoint_path, "checkpoint")
    if not args.out.endswith((".onnx", ".xml")):
        raise InputError(f"--out {args.out} does not end in .onnx or .xml")
    folder = os.path.dirname(args.out) or "."
    if not os.path.isdir(folder):
        raise InputError(f"--out {args.out}: there is no folder {folder}")
    if args.out.endswith(".xml"):
        print(f"{args.out}: {export_openvino(args, folder) / 1e6:.1f} MB, OpenVINO")
        return
    if args.int8:
        raise InputError("--int8 is for OpenVINO: give --out a name that ends in .xml")
    from backends.onnx import export
    from models.checkpoint import load_generator

    difference = export(load_generator(args.checkpoint_path), args.out)
    size = os.path.getsize(args.out) / 1e6
    print(f"{args.out}: {size:.1f} MB, within {difference:.1e} of PyTorch")


def export_openvino(args: argparse.Namespace, folder: str) -> int:
    """Write --out and its .bin, the .xml last; the bytes of both."""
    from backends.cache import NetworkCache
    from backends.exported import INFO, description
    from backends.openvino import OpenVINOBackend
    from backends.quantize import NETWORK
    from models.checkpoint import load_generator
    from models.openvino_core import require_openvino

    openvino = require_openvino("the export")
    model, precision = load_generator(args.checkpoint_path), "float32"
    if args.int8:
        network = NetworkCache(args.cache_dir, args.checkpoint_path).read(NETWORK)
        precision = "int8"
        if network is None:
            raise InputError("no int8 network of these weights yet: run inference.py --int8 once")
    else:
        network = OpenVINOBackend(model).whole()
    network.set_rt_info(description(model) | {"precision": precision}, INFO)
    name = os.path.basename(args.out).removesuffix(".xml")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        openvino.save_model(network, os.path.join(made, name + ".xml"), compress_to_fp16=False)
        for ending in (".bin", ".xml"):
            os.replace(os.path.join(made, name + ending), os.path.join(folder, name + ending))
    return sum(os.path.getsize(os.path.join(folder, name + e)) for e in (".bin", ".xml"))


if __name__ == "__main__":
    run_cli(main, get_args_parser())
