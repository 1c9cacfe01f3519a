"""The gateway: nginx, configured by us and asked nothing but to carry.

facts    what an nginx binary can do, read from its own words
nginx    the process: finding it, writing its files, testing them, its command line
render   configuration -> nginx.conf, as data; puts the other three together
guarded  the locations of a server: ask the guard, jump to an upstream, answer a problem
portal   the locations of gatebook's own pages
headers  which header fields pass, which are set, which are cleared
tree     directives as data, and their exact bytes

nginx never routes: it asks the guard about every request, and goes to the upstream that the guard names.
"""
