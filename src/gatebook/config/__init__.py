"""The operator's YAML -> frozen, typed configuration; the only package that knows YAML.

`model` is the configuration's shape and `value` the kinds of value in it; `load` reads a file into it;
`schema` describes it to editors and to `docs/config.md`. Inside: `source` (YAML -> plain data with
places), `explain` (pydantic's errors -> problems), `crosscheck` (names defined, and not given twice).
Imports nothing of ours but `errors`.
"""
