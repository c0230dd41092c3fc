//! The queue in a file of this machine.
