"""The models to compare with, made from the same weights by the tools that people use today."""

import os
import subprocess
import sys


def genai(directory, output, precision):
    """onnxruntime-genai's own builder on a Hugging Face directory."""
    if (output / "genai_config.json").exists():
        return output
    command = [
        sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(directory),
        "-o", str(output), "-p", precision, "-e", "cpu", "-c", str(output.parent / "cache"),
        "--extra_options", "hf_token=false",
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"onnxruntime-genai's builder failed:\n{done.stderr[-2000:]}")
    return output


def torch_encoder(directory, output):
    """torch.onnx's export of transformers' model, and onnxruntime's dynamic quantisation of it.

    Returns:
        dict precision -> file.
    """
    files = {name: output / f"torch-{name}.onnx" for name in ("fp32", "int8")}
    if not files["fp32"].exists():
        _torch_export(directory, files["fp32"])
    if not files["int8"].exists():
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(
            files["fp32"], files["int8"], op_types_to_quantize=["MatMul"],
            extra_options={"DefaultTensorType": 1},
        )  # fmt: skip
    return files


def _torch_export(directory, file):
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = {name: torch.ones(2, 7, dtype=torch.long) for name in names}
    axes = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length", max=512)}
    torch.onnx.export(
        model, (), file, kwargs=example, dynamo=True, verbose=False, input_names=names,
        output_names=["last_hidden_state", "pooler_output"],
        dynamic_shapes=dict.fromkeys(names, axes),
    )  # fmt: skip
