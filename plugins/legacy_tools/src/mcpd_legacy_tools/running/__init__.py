"""Running a tool of a tree: its module in its own package, its arguments, its answers.

`loading.load` is what the contracts of the tools name as their loader. It runs on the import thread
of the process in which the tool is to run, the host's or a worker's, and nothing else in here is
imported before it does.
"""
