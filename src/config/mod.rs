//! The configuration: one file, read into the settings of everything there is.
//!
//! * `find` — which file
//! * `read` — from its sections to [`Config`], or to all its faults; every default stands there
//! * `urls` — what the URLs of the file must be
//! * `masked` — the effective configuration, fit to be shown

mod find;
mod masked;
mod read;
mod settings;
mod urls;

pub use find::{CONFIG_VARIABLE, FILE_NAME, NoFile, find, process_environment};
pub use read::parse_sender_identity;
pub use settings::{Config, LogFormat, LogSettings, QueueChoice};
