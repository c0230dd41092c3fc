//! Sources: the doors texts come by. Only a source can say that a message is
//! [`Verified`](verified::Verified).

pub mod twilio;
pub mod verified;
