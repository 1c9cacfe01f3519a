"""Judges requests that nobody has sent: for `gatebook explain` and `gatebook policy test`.

opened.py     a configuration's file -> what judges by it, and where its rules stand
lent.py       the state folder -> the grants that lend roles, as a guard has them
given.py      what a person says of a request, its caller and the time, read strictly
judge.py      given -> the verdict of the guard, by the guard's own policy; pure
explain.py    the same with every rule and every condition's value, and nothing secret; pure
identify.py   a real credential -> whose it is, verified as a guard does it, providers asked
cases.py      YAML -> cases with their lines
suite.py      cases judged: what is not as expected, which rules no case reaches; pure
junit.py      the same for CI systems; pure
"""
