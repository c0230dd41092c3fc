//! The queue in a file of this machine: SQLite, durable before the answer.
//!
//! One thread (`writer`) owns the only connection that writes and gathers whatever waits for it into
//! one transaction: one `fsync` for many calls, and none of them waits for a timer. A second thread
//! (`reader`) answers the operator's questions from a snapshot. No call of SQLite runs on the threads
//! of the asynchronous runtime.
//!
//! In reading order: `schema` and `statements` (what is stored), `piece` (one piece of work and where
//! it can be), `intake`, `handout`, `owners`, `outcome` (its way through), `ending` and `letters` (its end),
//! `gate` and `gcra` (who has to wait), `housekeeping`, `upkeep` and `mending` (the file), `audit` and
//! `repair`.

mod audit;
mod books;
mod doorbell;
mod ending;
mod fault;
mod file;
mod gate;
mod gcra;
mod handout;
mod housekeeping;
mod intake;
mod letters;
mod mending;
mod operator;
mod outcome;
mod owners;
mod piece;
mod reader;
mod repair;
mod schema;
mod statements;
mod store;
mod upkeep;
mod writer;

pub use store::EmbeddedQueue;
