"""Speed and memory measured against other implementations, in one call and on the same cores.

A subject is one module of this package, named in `SUBJECTS`, with

* `CONTESTANTS`: name -> `subject.Contestant`; the first is ours, which the others are compared with;
* `UNIT`: what work is counted in ('examples'), '' where every contestant does the whole of it in each round and seconds
  are compared;
* `environment(options)`: variables set for every contestant;
* `inputs(options, folder)`: writes what all of them read, once (in a process of its own);
* `check(options, folder, outcomes)`: raises BenchError unless they computed the same; returns a line that says how near
  they are;
* `title(options)`: what was measured, for the report.

`options` is a dict of JSON values. Every contestant runs in a process of its own (`worker`), one at a time and in turn
(`timing`); `report` writes what came out. `pipeline` and `startup` have nothing to be compared with: they measure parts
of our own, and are no subjects.
"""

SUBJECTS = {
    'retrieval': 'exact nearest neighbours both ways between two sets of sentence vectors, as mining needs them',
    'train': 'training on one task: our loop with its input pipeline against a loop as Trainer has it',
    'eval': 'zero-shot evaluation over the languages of a task, or sentence vectors (--embed)',
}
PARTS = {
    'pipeline': 'the input pipeline by parts, and its share of a training step',
    'startup': 'first and second start of a training: imports, weights, data, compilation',
}
