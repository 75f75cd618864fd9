"""Benchmarks: speed and memory of this package against other implementations, in one call and on the same cores.

A subject is a benchmark with several implementations. It is one module of this package, named in `SUBJECTS`, with

* `IMPLEMENTATIONS`: name -> `subject.Implementation`; the first is ours, and the others are compared with it;
* `UNIT`: the unit of work ('examples'); '' if every implementation does all the work in each round, so that seconds are
  compared;
* `environment(options)`: environment variables of every implementation;
* `inputs(options, folder)`: writes the input files that all implementations read, once, in a separate process;
* `check(options, folder, outcomes)`: raises BenchError unless the implementations computed the same result; returns a
  line that states the largest difference;
* `title(options)`: what was measured, for the report.

`options` is a dict of JSON values. Every implementation runs in a separate process (`worker`); they run one at a time,
in turn (`timing`). `report` writes the results. `attention` is not such a subject: it compares the implementations
within this package.
"""

SUBJECTS = {
    'retrieval': 'exact nearest neighbours both ways between two sets of sentence vectors, as mining needs them',
    'train': 'training on one task: our loop with its input pipeline against a loop as Trainer has it',
    'eval': 'zero-shot evaluation over the languages of a task, or sentence vectors (--embed)',
}
KERNELS = {'attention': 'the attention implementations of this device: time, memory and error'}
