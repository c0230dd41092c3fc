//! Subscribers: who gets a message.
//!
//! `parse` reads `subscribers.toml`; `matching` finds the first subscriber, in the order of the file, all of
//! whose conditions hold, without looking at those that name other senders.

mod deadline;
mod matching;
mod parse;
mod senders;

pub use deadline::{Deadline, SHORTEST_AUTO};
pub use matching::{Match, Route, Subscribers};
pub use parse::{parse_name, parse_webhook};
pub use senders::parse_sender;
