"""The part of docs/results.md on exported files, from the files of quantization_aware.py and web_agreement.py.

The table of all runtimes is in docs/deploy.md (deploy_page.py).
"""

from results_page import NOT_RUN, load, machine, table


def deployment() -> str:
    """Training for int8, and whether real clients say what torch says."""
    head = "## Exported files\n\nEvery network in every runtime and precision: [deploy.md](deploy.md).\n"
    return "\n".join([head, _int8(), _clients()])


def _int8() -> str:
    text = "### Training for int8, in the form of S0's table (Q1)\n\n"
    found = load("quantization_aware")
    if found is None:
        return text + f"Measured: {NOT_RUN}.\n"
    text += (
        "S0, MobileNetV3-Large on ImageNet: 74.04 in float32, 71.16 calibrated, 73.00 trained for int8: training wins "
    )
    text += f"1.8 of the 2.9 points that are lost. Here, ONNX Runtime, {found['data']} "
    text += "(`python benchmarks/quantization_aware.py`); the loss in points has its 95% interval over the images, and "
    text += "both trainings chose their best epoch on them:\n\n"
    rows = list[list[str]]()
    for network, result in found["networks"].items():
        for form, row in result["forms"].items():
            low, high = row["interval"]
            rows.append([network, form, f"{row['top1']:.1f}", f"{row['lost']:.1f} ({low:.1f} to {high:.1f})"])
    return text + table(("Network", "form", "top-1", "lost"), rows, 2) + machine(found)


def _clients() -> str:
    text = "### Browser and MediaPipe beside torch\n\n"
    found = load("web_agreement")
    if found is None:
        return text + f"Measured: {NOT_RUN}.\n"
    text += f"Top-1 of all {found['data']}, prepared by the browser from the photo's pixels, or by us for MediaPipe "
    text += f"(`{found['command']}`):\n\n"
    rows = [
        [
            network,
            client,
            f"{row['same']} of {row['n']}",
            f"{row['largest_difference']:.1e}" if row["largest_difference"] else "under 1e-5",
        ]
        for network, clients in found["results"].items()
        for client, row in clients.items()
    ]
    return text + table(("Network", "client", "same class", "largest difference of a score"), rows, 2) + machine(found)
