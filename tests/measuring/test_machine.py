import json
import subprocess
import sys

from pocketvision.measuring.machine import _linux_cpu_name, this_machine


def test_facts_are_complete_and_json():
    facts = json.loads(json.dumps(this_machine().to_dict()))
    assert set(facts) == {"cpu", "cores", "memory_mb", "os", "architecture", "python"}
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert facts["python"] == sys.version.split()[0]


def test_cpu_names():
    server = (
        "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 26\nmodel : 2\nmodel name : AMD EPYC\n\nprocessor : 1\n"
    )
    board = "processor : 0\nBogoMIPS : 108.00\nCPU part : 0xd0b\n\nRevision : c04170\nModel : Raspberry Pi 5 Model B\n"
    assert _linux_cpu_name(server) == "AMD EPYC (family 26, model 2)"
    assert _linux_cpu_name(board) == "Raspberry Pi 5 Model B"
    assert _linux_cpu_name("") == ""


def test_facts_and_runtimes_need_no_torch():
    """``doctor`` and predictions with an artifact start without it."""
    program = (
        "import sys, pocketvision.measuring.machine, pocketvision.measuring.latency, pocketvision.exporting.artifact; "
    )
    program += "print('torch' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
