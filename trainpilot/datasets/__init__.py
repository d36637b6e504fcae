"""Pictures and captions: found, measured, sorted into buckets and dealt out in batches, without torch.

`table.build` is the one entrance of the plan and of the engine; the other modules are its stages.
"""
