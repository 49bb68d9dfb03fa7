"""The scientists' side: proposals, rounds, encrypted sums, the mailbox, the demo and the command line."""
