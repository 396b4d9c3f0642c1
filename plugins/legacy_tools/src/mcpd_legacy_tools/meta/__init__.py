"""The four tools by which clients of the old server reach all the others.

That server showed its clients ``tools_list_categories``, ``tools_list_tools``, ``tools_get_schema``
and ``tools_dispatch``. Here they cover what the host offers, whichever plugin it is of: an old
client finds its categories, and those of the newer plugins beside them.

The parts: `names` knows what old names mean, `written` reads how a tool's code is written,
`schemas` describes a tool in the old form, `tools` are the tools.
"""
