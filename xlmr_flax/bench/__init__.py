"""Speed and memory measured against other implementations, in one call and on the same cores.

A subject is one module of this package, named in `SUBJECTS`, with

* `CONTESTANTS`: name -> `subject.Contestant`; the first is ours, which the others are compared with;
* `ENVIRONMENT`: variables set for every contestant;
* `inputs(options, folder)`: writes what all of them read, once;
* `check(options, folder, outcomes)`: raises BenchError unless they computed the same; returns a line that says how near
  they are;
* `title(options)`: what was measured, for the report.

`options` is a dict of JSON values. Every contestant runs in a process of its own (`worker`), one at a time and in turn
(`timing`); `report` writes what came out.
"""

SUBJECTS = {
    'retrieval': 'exact nearest neighbours both ways between two sets of sentence vectors, as mining needs them',
}
