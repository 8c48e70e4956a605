"""Reading what other programs wrote: lm-eval's results and samples, MT-Bench score files.

`folders` finds and reads the files, `scores`, `identity` and `tables` make tables of their rows,
`figures` and `groups` hold these against lm-eval's own means, `lm_eval_outputs` does all of it for
an output, `mtbench` reads a score file, `replies` is for people.
"""

from results.outputs.folders import (
    NO_FILTER,
    below,
    read_json,
    read_lines,
    results_file,
    results_files,
    samples,
    seeds,
)
from results.outputs.lm_eval_outputs import bench_of, lm_eval_scores, lm_eval_tables, readable
from results.outputs.mtbench import mtbench_scores
from results.outputs.replies import Reply, replies

__all__ = [
    "NO_FILTER",
    "Reply",
    "bench_of",
    "below",
    "lm_eval_scores",
    "lm_eval_tables",
    "mtbench_scores",
    "read_json",
    "read_lines",
    "readable",
    "replies",
    "results_file",
    "results_files",
    "samples",
    "seeds",
]
