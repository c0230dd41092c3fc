//! `sms-broadcaster init`: the first two files, without a manual.
//!
//! * `args` — the flags
//! * `answers` — what the flags and a person at the terminal say, checked as the files' readers would
//! * `webhook` — a Slack webhook, or where it is kept
//! * `starter` — the files, and what to do next
//! * `command` — the whole of it, and its exit code

mod answers;
mod args;
mod command;
mod starter;
mod webhook;

pub use args::InitArgs;
pub use command::run;
