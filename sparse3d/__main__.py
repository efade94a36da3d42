"""`python -m sparse3d`: the command line, for torchrun and where the script is not on the path.

Train on two GPUs of one machine: `torchrun --nproc-per-node 2 -m sparse3d train CONFIG`.
"""

import sys

from sparse3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
