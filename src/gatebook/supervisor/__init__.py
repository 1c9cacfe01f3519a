"""`gatebook run`: starts recorder, guards and gateway, keeps them alive, reloads and stops them.

child.py     one process of ours: started, watched, restarted with growing patience, ended
service.py   all of them, in the right order; readiness; the end
reload.py    from one configuration to another, or not at all
control.py   the socket on which `gatebook status` and `gatebook reload` ask
"""
