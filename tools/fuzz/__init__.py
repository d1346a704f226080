"""Generated requests, held against the contract: bodies in this process, and connections to a real one."""
