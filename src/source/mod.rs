//! Sources: the doors texts come by, one file each.

pub mod twilio;
