//! The worker: claims, routes, delivers, settles.
//!
//! One lane, one loop. A permit is taken before work is claimed, and work in hand is in one place
//! only: a task that owns its [`Lease`](crate::queue::contract::Lease). What the worker does not know:
//! which store, which provider, and what time it is (it asks the store).

pub mod settings;

mod appetite;
mod attempt;
mod deliver;
mod fanout;
mod held;
mod patience;
mod readdress;
mod recorder;
mod run;
mod slots;
mod store_time;
mod suspects;
mod upkeep;

pub use run::{Worker, WorkerParts};
