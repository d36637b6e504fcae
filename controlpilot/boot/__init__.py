"""What happens in the container before supervisord, and what stays above it: `python -m controlpilot.boot`, as root.

    report.py      one line for each fact, in the container's log and in run/boot.json
    machine.py     driver, GPU, CPU, memory, shared memory
    volume.py      what the volume under /workspace can and cannot do
    users.py       the user pilot gets the id that owns the volume
    folders.py     run folder, logs, the workspace's own folders and who may write them
    secret_place.py  where password and tokens live, and the password of the first start
    seeding.py     the template and the tree of the FLUX guide, as pilot
    compiled.py    supervisord's environment, its one group, nginx.conf, what shells need
    sshd.py        logins by key, where keys are given
    keeper.py      starts supervisord, and at the end tells every trainer before it

Nothing here needs a network, and nothing stops the boot: what is missing is said, and the panel comes up to say it too.
"""
