"""Many reports from one file: each a process of its own, as many at once as the machine bears, resumable, with an index.

document  a YAML file as plain nodes that know their line; nothing in it can run, unfold or surprise
plan      what the file asks for: one `Job` for each notebook with one set of parameters
folder    what lies where in the batch's folder, and which of it is whole
admission which jobs may run beside each other
job       one child process, its limit, and what it left running
child     what that process does
run       the loop
key_results, differences, record, index   what is told of them
"""
