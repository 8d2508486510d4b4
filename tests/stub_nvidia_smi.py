"""An nvidia-smi for one GPU that keeps its state in a file and speaks as the real one does.

Made into a program by `install`. What it refuses, it refuses in the words and with the exit
status of drivers 510 to 610, as far as they are published: a setting that a card lacks is told as
a warning, with exit 0.
"""

from __future__ import annotations

import json
import os
import re
import sys

# Nothing else is imported when it runs: each import makes hundreds of calls slower.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases", "gpu")
WARNING = "Treating as warning and moving on.\nAll done."
PROFILES = {
    "1g.12gb": 19, "1g.12gb+me": 20, "1g.24gb": 15, "2g.24gb": 14, "3g.47gb": 9, "4g.47gb": 5,
    "7g.94gb": 0,
}  # fmt: skip
FAILURES = {
    "mismatch": (18, "Failed to initialize NVML: Driver/library version mismatch"),
    "driver": (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
    "none": (6, "No devices were found"),
    "permission": (4, "Failed to initialize NVML: Insufficient Permissions"),
    "unknown": (255, "Failed to initialize NVML: Unknown Error"),
}


def install(folder: Path, case: str, **state: Any) -> Path:
    """Make folder/nvidia-smi, with the GPU of a case; the path of its state.

    state: fail (a key of FAILURES), root (whether it may change settings), busy (whether
    something uses the GPU), reset (the MIG mode changes at a reset only), and the settings.
    """
    text = _case(case)
    memory, power = _get(text, "max_clocks", "mem_clock"), _get(text, None, "min_power_limit")
    start: dict[str, Any] = {
        "case": case, "fail": "", "root": True, "busy": False, "reset": False, "lgc": "",
        "lmc": "", "pl": _get(text, None, "current_power_limit|power_limit").split(" ")[0],
        "c": _get(text, None, "compute_mode"), "e": _get(text, None, "pending_ecc"),
        "pm": _get(text, None, "persistence_mode"), "mig": _get(text, None, "current_mig"),
        "mig_pending": _get(text, None, "pending_mig"), "instances": [],
        "memory_clock": memory != "N/A", "power": power != "N/A",
    }  # fmt: skip
    path = folder / "nvidia-smi.json"
    path.write_text(json.dumps({**start, **state}))
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {path} "$@"\n')
    program.chmod(0o755)
    return path


def main(path: str, words: list[str]) -> int:
    """Answer a command line."""
    with open(path) as file:
        state = json.load(file)
    if state["fail"]:
        code, text = FAILURES[state["fail"]]
        print(text)
        return code
    if words[:2] == ["-q", "-x"]:
        print(report(state), end="")
        return 0
    code = mig(state, words[1:]) if words[:1] == ["mig"] else setting(state, words)
    with open(path, "w") as file:
        json.dump(state, file)
    return code


def setting(state: dict[str, Any], words: list[str]) -> int:
    """-i GPU, then one setting."""
    bus = _get(report(state), None, "pci_bus_id")
    if words[:1] == ["-i"]:
        words = words[2:]
    verb, *values = words
    if verb.startswith("--query-gpu=mig.mode.current"):
        print(state["mig"] if state["mig"] != "N/A" else "[N/A]")
        return 0
    if verb == "-L":
        print(f"GPU 0: NVIDIA H100 NVL (UUID: {_get(report(state), None, 'uuid')})")
        for index, name in enumerate(state["instances"]):
            print(f"  MIG {name:15} Device  {index}: (UUID: MIG-{index})")
        return 0
    if not state["root"]:
        print(f"The current user does not have permission to change clocks for GPU {bus}.")
        print("Terminating early due to previous errors.")
        return 4
    return change(state, verb, values[0] if values else "", bus)


def change(state: dict[str, Any], verb: str, value: str, bus: str) -> int:
    """One setting of the GPU."""
    match verb:
        case "-lgc" | "-rgc":
            state["lgc"] = value
            low, high = (value.split(",") * 2)[:2] if value else ("", "")
            print(f'GPU clocks set to "(gpuClkMin {low}, gpuClkMax {high})" for GPU {bus}')
        case "-lmc" | "-rmc" if not state["memory_clock"]:
            print(f"Setting locked Memory clocks is not supported for GPU {bus}.\n{WARNING}")
            return 0
        case "-lmc" | "-rmc":
            state["lmc"] = value
            print(f'Memory clocks set to "(memClkMin {value}, memClkMax {value})" for GPU {bus}')
        case "-pl" if not state["power"]:
            print("Changing power management limit is not supported in current scope for GPU: "
                  f"{bus}.\n{WARNING}")  # fmt: skip
            return 0
        case "-pl":
            return power(state, float(value), bus)
        case "-c":
            names = {"default": "Default", "exclusive_process": "Exclusive_Process",
                     "prohibited": "Prohibited"}  # fmt: skip
            state["c"] = names[value.lower()]
            print(f"Set compute mode to {value} for GPU {bus}.")
        case "-e":
            state["e"] = "Enabled" if value == "1" else "Disabled"
            print(f"{state['e']} ECC support for GPU {bus}.\nReboot required.")
        case "-pm":
            state["pm"] = "Enabled" if value == "1" else "Disabled"
            print(f"{state['pm']} persistence mode for GPU {bus}.")
        case "-mig":
            return mig_mode(state, "Enabled" if value == "1" else "Disabled", bus)
        case _:
            print(f"Invalid combination of input arguments. {verb}")
            return 1
    print("All done.")
    return 0


def power(state: dict[str, Any], watt: float, bus: str) -> int:
    """Within the card's own bounds."""
    text = report(state)
    low = float(_get(text, None, "min_power_limit").split(" ")[0])
    high = float(_get(text, None, "max_power_limit").split(" ")[0])
    if not low <= watt <= high:
        print(f"Provided power limit {watt:.2f} W is not a valid power limit which should be "
              f"between {low:.2f} W and {high:.2f} W for GPU {bus}")  # fmt: skip
        print("Terminating early due to previous errors.")
        return 2
    print(f"Power limit for GPU {bus} was set to {watt:.2f} W from {state['pl']} W.\nAll done.")
    state["pl"] = f"{watt:.2f}"
    return 0


def mig_mode(state: dict[str, Any], mode: str, bus: str) -> int:
    """At once, or with reset: only after a reset of the GPU."""
    if state["instances"] and mode == "Disabled":
        print("Unable to disable MIG Mode for GPU: In use by another client")
        return 19
    state["mig_pending"] = mode
    if state["reset"]:
        print(f"Warning: MIG mode is in pending {mode.lower()[:-1]} state for GPU {bus}:Not "
              "Supported\nReboot the system or try nvidia-smi --gpu-reset to make MIG mode "
              f"effective on GPU {bus}")  # fmt: skip
    else:
        state["mig"] = mode
        print(f"{mode} MIG Mode for GPU {bus}")
    print("All done.")
    return 0


def mig(state: dict[str, Any], words: list[str]) -> int:
    """The subcommand mig."""
    if words[:1] == ["-i"]:
        words = words[2:]
    if state["mig"] != "Enabled":
        print("No MIG-enabled devices found.")
        return 6
    match words:
        case ["-lgi"]:
            if not state["instances"]:
                print("No GPU instances found: Not Found")
                return 6
            print("+" + "-" * 55 + "+\n| GPU instances:" + " " * 40 + "|")
            print("| GPU   Name             Profile  Instance   Placement  |")
            print("|                          ID       ID       Start:Size |\n|" + "=" * 55 + "|")
            for index, name in enumerate(state["instances"]):
                print(f"|   0  MIG {name:14}{PROFILES[name]:>5}{index + 7:>9}{index:>11}:1     |")
                print("+" + "-" * 55 + "+")
        case ["-dci" | "-dgi" as verb]:
            if not state["instances"]:
                print("No GPU instances found: Not Found")
                return 6
            if state["busy"]:
                print("Unable to destroy GPU instance ID  7 from GPU  0: In use by another client")
                print("Failed to destroy GPU instances: In use by another client")
                return 19
            if verb == "-dgi":
                state["instances"] = []
        case ["-cgi", names, "-C"]:
            state["instances"] += names.split(",")
            for name in names.split(","):
                print(f"Successfully created GPU instance ID  7 on GPU  0 using profile MIG {name}")
    return 0


def report(state: dict[str, Any]) -> str:
    """The report of the case with the settings of the state."""
    text = _case(state["case"])
    for tag, value in (
        ("persistence_mode", state["pm"]), ("compute_mode", state["c"]),
        ("pending_ecc", state["e"]), ("current_mig", state["mig"]),
        ("pending_mig", state["mig_pending"]),
    ):  # fmt: skip
        text = re.sub(rf"(<{tag}>)[^<]*", rf"\g<1>{value}", text)
    if state["power"]:
        text = re.sub(r"(<(?:current_)?power_limit>)[^<]*", rf"\g<1>{state['pl']} W", text, count=1)
    if state["busy"] is False:
        text = re.sub(r"<processes>.*?</processes>", "<processes>\n</processes>", text, flags=re.S)
    return text


def _case(name: str) -> str:
    with open(os.path.join(CASES, f"{name}.xml")) as file:
        return file.read()


def _get(text: str, inside: str | None, tag: str) -> str:
    if inside:
        text = text.split(f"<{inside}>")[1].split(f"</{inside}>")[0]
    found = re.search(rf"<(?:{tag})>([^<]*)<", text)
    return found[1].strip() if found else "N/A"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
