"""The generator on torch, OpenVINO or ONNX Runtime: bytes in, bytes out (api.py makes one)."""
