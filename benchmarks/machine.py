"""Print what this machine can do: read bandwidth and arithmetic peaks.

python benchmarks/machine.py --threads 2
"""

import argparse
import json
import os
from dataclasses import asdict

from gptoss_onnx.bench.machine import measure

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    print(json.dumps(asdict(measure(parser.parse_args().threads)), indent=2))
