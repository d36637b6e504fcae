"""The life of a job, without torch: run folders, events, requests, stopping, locks, the queue and its worker.

The files are those of `contracts.md`; the trainer, the worker, the shell and the panel meet only in them.
"""
