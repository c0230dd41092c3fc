//! Sources: the doors texts come by, one file each. Only a source can say that a message is
//! [`Verified`](verified::Verified).

pub mod twilio;
pub mod verified;
