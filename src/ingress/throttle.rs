//! How many requests each client may make.

use std::hash::RandomState;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use lru::LruCache;

use crate::queue::contract::Rate;

/// Clients remembered. Whoever is forgotten starts anew, so an attacker with more addresses than this
/// gains nothing: he has a fresh one for every request already.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// One limiter for all clients, in bounded memory.
pub(super) struct Throttle<C: Clock = DefaultClock>(
    RateLimiter<IpAddr, RecentClients, C, NoOpMiddleware<C::Instant>>,
);

impl Throttle {
    /// Allows each client `rate`. `None` for a rate that cannot be held, which allows nothing or
    /// everything at once.
    pub(super) fn new(rate: Rate) -> Option<Self> {
        Self::with(rate, CLIENTS, DefaultClock::default())
    }
}

impl<C: Clock> Throttle<C> {
    fn with(rate: Rate, clients: NonZeroUsize, clock: C) -> Option<Self> {
        let quota = Quota::with_period(rate.interval)?.allow_burst(NonZeroU32::new(rate.burst)?);
        Some(Self(RateLimiter::new(quota, RecentClients::new(clients), clock)))
    }

    /// Counts a request of `client`; when it has had its share, how long until the next one.
    pub(super) fn check(&self, client: IpAddr) -> Result<(), Duration> {
        self.0.check_key(&client).map_err(|until| until.wait_time_from(self.0.clock().now()))
    }
}

/// What the limiter knows of each client; the one seen longest ago makes room.
struct RecentClients(Mutex<LruCache<IpAddr, Nanos, RandomState>>);

impl RecentClients {
    fn new(most: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::with_hasher(most, RandomState::new())))
    }
}

impl StateStore for RecentClients {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowed, known) = decide(clients.get(client).copied())?;
        clients.put(*client, known);
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn throttle(clients: usize) -> (Throttle<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate { interval: Duration::from_millis(500), burst: 2 };
        (Throttle::with(rate, NonZeroUsize::new(clients).unwrap(), clock.clone()).unwrap(), clock)
    }

    #[test]
    fn each_client_has_a_burst_then_its_rate_and_is_told_how_long_to_wait() {
        let (throttle, clock) = throttle(10);
        assert_eq!((throttle.check(address(1)), throttle.check(address(1))), (Ok(()), Ok(())));
        assert_eq!(throttle.check(address(1)), Err(Duration::from_millis(500)));
        assert_eq!(throttle.check(address(2)), Ok(()));
        clock.advance(Duration::from_millis(400));
        assert_eq!(throttle.check(address(1)), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(100));
        assert_eq!(throttle.check(address(1)), Ok(()));
        assert!(throttle.check(address(1)).is_err());
    }

    #[test]
    fn the_table_of_clients_is_bounded_and_forgets_who_was_quiet_longest() {
        let (throttle, _) = throttle(10);
        for _ in 0..2 {
            assert_eq!(throttle.check(address(0)), Ok(()));
        }
        for number in 1..10_000 {
            assert_eq!(throttle.check(address(number)), Ok(()));
            assert!(throttle.check(address(0)).is_err(), "who comes again and again is not forgotten");
        }
        assert_eq!(throttle.0.into_state_store().0.into_inner().unwrap().len(), 10);
    }

    #[test]
    fn a_rate_that_cannot_be_held_is_none() {
        assert!(Throttle::new(Rate { interval: Duration::ZERO, burst: 1 }).is_none());
        assert!(Throttle::new(Rate { interval: Duration::from_secs(1), burst: 0 }).is_none());
    }
}
