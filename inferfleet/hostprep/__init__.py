"""Host preparation: settings of the kernel, the GPUs and the disks, looked at, changed, undone.

profiles -> Wanted settings -> (one look) Facts -> Findings -> Changes -> (one act) -> verified.
Everything up to the act is pure. A kind of setting is a module in `kinds`.
"""
