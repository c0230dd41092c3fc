//! Which one-time code a text holds, whose it is and how long it lives.
//!
//! A pure function of the text and its sender, in this order: `reading` folds the text to one spelling,
//! `lexicon` finds its words (the data is `lexicon.txt` and `brands.txt`), `addresses` what is a link,
//! `candidates` what has the shape of a code, `scoring` which of them is one; `domain_line`, `expiry` and
//! `service` read the rest. `docs/recognition.md` says how well it does and what a text may not decide.

mod addresses;
mod candidates;
mod domain_line;
mod expiry;
mod lexicon;
mod masking;
mod reading;
mod recogniser;
mod scoring;
mod service;

pub use domain_line::bound_last_line;
pub use recogniser::{Code, CodeEvidence, Recognised, Recogniser, ServiceEvidence};
