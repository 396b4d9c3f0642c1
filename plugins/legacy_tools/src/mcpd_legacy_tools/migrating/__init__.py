"""What an older server was configured with, said in the words of ``mcpd.toml``.

The parts: `reading` finds the old settings in a YAML file and in variables, `rules` knows what each
of them became, `converting` applies the rules, `writing` makes the file.
"""
