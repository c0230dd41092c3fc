//! Log lines that may come in floods: one per kind and 30 s, with a count of the rest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line per kind in this time.
const EVERY: Duration = Duration::from_secs(30);

/// Decides which of many equal lines are written.
#[derive(Default)]
pub struct Quiet {
    kinds: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl Quiet {
    /// Whether to write a line of `kind` at `now`; with it, how many were left out since the last one.
    pub fn admits(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(kind) {
            Some((last, left_out)) if now.duration_since(*last) < EVERY => {
                *left_out += 1;
                None
            }
            Some((last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.admits("a", start), Some(0));
        assert_eq!(quiet.admits("a", start), None);
        assert_eq!(quiet.admits("b", start), Some(0));
        assert_eq!(quiet.admits("a", start + EVERY), Some(1));
    }
}
