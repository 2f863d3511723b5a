"""Where strangers' files are decoded: a child process with limits, that can reach nothing.

calls.py starts it and asks it; child.py is what runs in it; confinement.py takes the network, the
other programs and the other files away from it; wire.py is all that the two can say to each other.
"""
