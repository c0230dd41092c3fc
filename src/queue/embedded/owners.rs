//! When each owner was heard of: by a claim, a renewal or a sweep.
//!
//! In memory, for a service that starts has its predecessor's work in hand back at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::piece::Holder;
use crate::clock::Timestamp;

/// For how long an owner that says nothing is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Who is at work.
#[derive(Debug, Default)]
pub(super) struct Owners(RefCell<HashMap<String, Timestamp>>);

impl Owners {
    /// Notes that `owner` called.
    pub(super) fn hear(&self, owner: &str, now: Timestamp) {
        let mut all = self.0.borrow_mut();
        if let Some(heard) = all.get_mut(owner) {
            *heard = now;
        } else {
            all.insert(owner.to_owned(), now);
        }
    }

    /// Whether the owner of a lease of `length` was heard of when it was more than half over and not renewed. Whoever
    /// knows of a lease renews it sooner: this one lives and does not know of it, or could not renew it. The work is
    /// not what took it down.
    pub(super) fn outlived(&self, holder: &Holder, length: Duration) -> bool {
        self.0.borrow().get(&holder.owner).is_some_and(|heard| *heard >= holder.until.minus(length / 2))
    }

    /// Forgets those that have said nothing for long.
    pub(super) fn forget(&self, now: Timestamp) {
        self.0.borrow_mut().retain(|_, heard| now.since(*heard) < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_outlives_a_lease_when_it_speaks_in_the_second_half_of_it() {
        let (begin, length) = (Timestamp::from_millis(1_767_225_600_000), Duration::from_secs(10));
        let holder = Holder { owner: "one".to_owned(), lease_no: 1, until: begin.plus(length) };
        let owners = Owners::default();
        assert!(!owners.outlived(&holder, length), "never heard of");
        owners.hear("one", begin.plus(length * 49 / 100));
        owners.hear("other", begin.plus(length));
        assert!(!owners.outlived(&holder, length));
        owners.hear("one", begin.plus(length / 2));
        assert!(owners.outlived(&holder, length));
        owners.forget(begin.plus(length + REMEMBERED - Duration::from_secs(1)));
        assert_eq!(owners.0.borrow().keys().collect::<Vec<_>>(), ["other"]);
    }
}
