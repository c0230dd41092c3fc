//! A TOML file that is read by hand, so that every fault has its line and none hides another.
//!
//! [`read`] gives a closure the root [`Section`]; the closure asks for the keys it knows, each with its
//! type and default. What it did not ask for is an unknown key. A faulty value is noted and reading
//! goes on; at the end there are either no faults or all of them.
//!
//! * `source` — the whole file; `section` — its tables; `readers` — their values
//! * `reference` — `${NAME}` and `${file:…}` inside strings
//! * `quantity` — durations, sizes and rates with their units
//! * `writing` — the way back
//! * `fault` — what is wrong, and where

mod fault;
mod quantity;
mod readers;
mod reference;
mod section;
mod source;
mod writing;

pub use fault::Fault;
pub use quantity::{
    Frequency, LONGEST, duration_text, parse_duration, parse_frequency, parse_size, size_text,
};
pub use reference::Environment;
pub use section::{Section, Text};
pub use source::{load, read};
pub use writing::quoted;
