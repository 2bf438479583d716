"""Train the routing policy: the documented entrance to ``fettle router train``.

``python scripts/run_router_ppo.py --config configs/policy/rllm.yaml --updates 8 --seed 42``
"""

import sys

from fettle.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["router", "train"]
    main()
