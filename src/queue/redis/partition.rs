//! Where a message belongs, and what one shard has of what is the whole store's.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::message::MessageId;
use crate::queue::contract::{QueueSettings, Rate};

/// Which of how many shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// From 0.
    pub(super) number: usize,
    /// At least 1.
    pub(super) of: usize,
}

/// How the ids begin that the store itself makes, for an entry that named no message: that is where it was found.
pub(super) const NAMED_BY_THE_STORE: &str = "raw:";

/// The shard, of `of`, that a message belongs to. What is stored depends on it: it must stay as it is.
pub(super) fn home_of(message: &MessageId, of: usize) -> usize {
    if of == 1 {
        return 0;
    }
    let hash = Sha256::digest(message.as_str());
    let (head, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    usize::try_from(u64::from_be_bytes(*head) % of as u64).expect("less than `of`")
}

impl Partition {
    /// The shard that a message belongs to, if it is not this one.
    pub(super) fn home_of_stray(self, message: &MessageId) -> Option<usize> {
        let home = home_of(message, self.of);
        (home != self.number && !message.as_str().starts_with(NAMED_BY_THE_STORE)).then_some(home)
    }

    /// This shard's share of an amount; all shares together are the amount.
    fn share(self, amount: u64) -> u64 {
        let (number, of) = (self.number as u64, self.of as u64);
        amount / of + u64::from(number < amount % of)
    }

    /// The share of a rate: so much slower, so much less at once. All shards together hand out no more than the
    /// rate allows, if its burst is at least one for each.
    pub(super) fn share_of_rate(self, rate: Rate) -> Rate {
        let of = u32::try_from(self.of).unwrap_or(u32::MAX);
        let burst = self.share(rate.burst.into()).max(1);
        Rate {
            interval: rate.interval.checked_mul(of).unwrap_or(Duration::MAX),
            burst: u32::try_from(burst).unwrap_or(rate.burst),
        }
    }

    /// The share of what a store may hold. Messages spread evenly, but not exactly so.
    pub(super) fn share_of(self, settings: &QueueSettings) -> QueueSettings {
        QueueSettings {
            capacity: self.share(settings.capacity).max(1),
            dead_letter_cap: self.share(settings.dead_letter_cap).max(1),
            ..settings.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(of: usize) -> impl Iterator<Item = Partition> {
        (0..of).map(move |number| Partition { number, of })
    }

    #[test]
    fn a_message_belongs_where_it_always_did() {
        let home = |id: &str, of| home_of(&MessageId::parse(id).unwrap(), of);
        for (id, expected) in [
            ("SM00000000000000000000000000000001", [0, 3, 835]),
            ("test:1", [0, 13, 13]),
            ("test:2", [1, 2, 914]),
        ] {
            assert_eq!([home(id, 3), home(id, 16), home(id, 1024)], expected, "{id}");
            assert_eq!(home(id, 1), 0);
        }
    }

    #[test]
    fn messages_spread_over_all_shards() {
        for of in [2, 3, 16] {
            let mut held = vec![0_u32; of];
            for number in 0..4_800 {
                held[home_of(&MessageId::of_source("test", &number.to_string()).unwrap(), of)] += 1;
            }
            let mean = 4_800 / u32::try_from(of).unwrap();
            assert!(held.iter().all(|count| count.abs_diff(mean) < mean / 4), "{held:?}");
        }
    }

    #[test]
    fn a_stray_is_a_message_in_another_shard_than_its_own() {
        let (own, raw) = (MessageId::parse("test:2").unwrap(), MessageId::parse("raw:in-1-0").unwrap());
        let strays: Vec<_> = all(3).map(|shard| shard.home_of_stray(&own)).collect();
        assert_eq!(strays, [Some(1), None, Some(1)]);
        assert!(all(3).all(|shard| shard.home_of_stray(&raw).is_none()));
        assert!(all(1).all(|shard| shard.home_of_stray(&own).is_none()));
    }

    #[test]
    fn shares_make_up_the_whole_and_no_more() {
        for of in [1, 2, 3, 7, 10] {
            let rate = Rate { interval: Duration::from_millis(100), burst: 10 };
            let shares: Vec<Rate> = all(of).map(|shard| shard.share_of_rate(rate)).collect();
            assert_eq!(shares.iter().map(|share| share.burst).sum::<u32>(), rate.burst);
            let per_second: f64 = shares.iter().map(|share| 1.0 / share.interval.as_secs_f64()).sum();
            assert!((per_second - 10.0).abs() < 1e-9);
            let settings = QueueSettings { capacity: 1_000_001, ..QueueSettings::default() };
            assert_eq!(all(of).map(|shard| shard.share_of(&settings).capacity).sum::<u64>(), 1_000_001);
        }
    }
}
