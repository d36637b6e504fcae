"""The doctor: what is wrong with a dataset, where, why it matters, and what to do about it.

`survey.examine` reads everything once and makes a `Case`; each file of `checks/` looks at it and yields findings;
`report.Report` is the answer as text, JSON or a page. Used by `trainpilot dataset check` and the job `dataset-check`.
"""
