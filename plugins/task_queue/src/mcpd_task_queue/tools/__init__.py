"""The tools and the resources of the task queue. They run in trio, beside the service they talk to.

* `submission`: tasks are made, now or later, one or many;
* `monitoring`: looking at them;
* `management`: changing one of them;
* `queues`: pausing, resuming and clearing a whole queue;
* `workers`: slots that only take certain tasks;
* `resources`: queues and tasks to be read and followed;
* `legacy_tasks`, `legacy_queues`: the names and shapes of an older server; clients are not told of
  them.
"""

#: The modules that define them.
MODULES = tuple(
    f"{__name__}.{name}"
    for name in (
        "submission",
        "monitoring",
        "management",
        "queues",
        "workers",
        "resources",
        "legacy_tasks",
        "legacy_queues",
    )
)
