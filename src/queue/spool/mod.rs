//! The spool: a store of this machine for what cannot go to the real one now.
//!
//! `store` keeps messages in a file and gives them back, oldest first; `spooling` decides where a new
//! message goes; `forwarder` brings what was kept to where it belongs.

mod forwarder;
mod spooling;
mod store;

pub use spooling::SpoolingQueue;
pub use store::Spool;
