//! Gates: for each lane and destination the state of its rate, its pause, and when its parked work
//! may go on.

use std::collections::HashMap;

use rusqlite::params;

use super::gcra;
use super::statements;
use super::writer::Step;
use crate::clock::Timestamp;
use crate::queue::contract::Rate;

/// One gate. The default says nothing: full allowance, no pause, nothing parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate {
    /// See [`gcra`]; microseconds since the Unix epoch.
    tat_us: i64,
    /// The end of the latest pause; it may have passed.
    held_until: Option<Timestamp>,
    /// When to look at its parked work again; `None` exactly if there is none.
    pub(super) wake_at: Option<Timestamp>,
}

/// The key under which a lane's own gate is kept.
pub(super) const OF_THE_LANE: &str = "";

fn micros(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(1_000)
}

/// The first whole millisecond that is not before `micros`.
fn millis(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) != 0))
}

impl Gate {
    /// The end of the pause that holds at `now`, if one does.
    pub(super) fn held(&self, now: Timestamp) -> Option<Timestamp> {
        self.held_until.filter(|until| *until > now)
    }

    /// Pauses until `until`, unless a longer pause is set.
    pub(super) fn hold(&mut self, until: Timestamp) -> Timestamp {
        let until = self.held_until.map_or(until, |held| held.max(until));
        self.held_until = Some(until);
        until
    }

    /// How many `rate` allows now, at most `want`.
    pub(super) fn room(&mut self, rate: Option<Rate>, now: Timestamp, want: usize) -> usize {
        rate.map_or(want, |rate| {
            self.tat_us = gcra::clamped(rate, self.tat_us, micros(now));
            let room = gcra::room(rate, self.tat_us, micros(now));
            usize::try_from(room).unwrap_or(usize::MAX).min(want)
        })
    }

    /// When `rate` allows one again.
    pub(super) fn opens_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        millis(gcra::opens_at(rate, self.tat_us, micros(now)))
    }

    /// Pays for `count` hand-outs.
    pub(super) fn spend(&mut self, rate: Option<Rate>, now: Timestamp, count: usize) {
        if let Some(rate) = rate {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.tat_us = gcra::spent(rate, self.tat_us, micros(now), count);
        }
    }

    /// Looks at the parked work again at `at` or before.
    pub(super) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |set| set.min(at)));
    }

    /// From when on it says nothing, parked work apart.
    fn quiet_at(&self) -> Timestamp {
        let paid = millis(self.tat_us);
        self.held_until.map_or(paid, |held| held.max(paid))
    }
}

impl Step<'_> {
    /// The gate of a destination in a lane.
    pub(super) fn gate(&self, lane: &str, destination: &str) -> rusqlite::Result<Gate> {
        let gate = self.row(statements::GATE, params![lane, destination], |row| {
            Ok(Gate {
                tat_us: row.get(0)?,
                held_until: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
                wake_at: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
            })
        })?;
        Ok(gate.unwrap_or_default())
    }

    /// Writes a gate. A pause that is over is not worth a word.
    pub(super) fn set_gate(&self, lane: &str, destination: &str, gate: Gate) -> rusqlite::Result<()> {
        let gate = Gate { held_until: gate.held(self.now), ..gate };
        self.run(
            statements::SET_GATE,
            params![
                lane,
                destination,
                gate.tat_us,
                gate.held_until.map(Timestamp::as_millis),
                gate.wake_at.map(Timestamp::as_millis),
                gate.quiet_at().as_millis(),
            ],
        )?;
        Ok(())
    }

    /// After a piece left the park by another way than waking: a destination without parked work is
    /// not woken.
    pub(super) fn left_the_park(&self, lane: &str, destination: &str) -> rusqlite::Result<()> {
        let key = params![lane, destination];
        if self.row(statements::ANY_PARKED, key, |_| Ok(()))?.is_none() {
            let gate = self.gate(lane, destination)?;
            self.set_gate(lane, destination, Gate { wake_at: None, ..gate })?;
        }
        Ok(())
    }
}

/// The gates of one lane that a claim touches: each is read once and written once.
pub(super) struct Gates<'a> {
    lane: &'a str,
    /// As stored, and as it is now.
    touched: HashMap<String, (Gate, Gate)>,
}

impl<'a> Gates<'a> {
    pub(super) fn new(lane: &'a str) -> Self {
        Self { lane, touched: HashMap::new() }
    }

    /// The gate of `destination`, to look at and to change.
    pub(super) fn of(&mut self, step: &Step<'_>, destination: &str) -> rusqlite::Result<&mut Gate> {
        if !self.touched.contains_key(destination) {
            let gate = step.gate(self.lane, destination)?;
            self.touched.insert(destination.to_owned(), (gate, gate));
        }
        let (_, gate) = self.touched.get_mut(destination).expect("inserted above");
        Ok(gate)
    }

    /// Writes those that changed.
    pub(super) fn write(self, step: &Step<'_>) -> rusqlite::Result<()> {
        for (destination, (stored, gate)) in self.touched {
            if stored != gate {
                step.set_gate(self.lane, &destination, gate)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_so_that_nobody_asks_too_early() {
        assert_eq!(millis(1_000), Timestamp::from_millis(1));
        assert_eq!(millis(1_001), Timestamp::from_millis(2));
        assert_eq!(millis(0), Timestamp::from_millis(0));
    }

    #[test]
    fn a_clock_that_stepped_back_shuts_a_gate_for_one_burst_and_not_for_as_long_as_the_step_was() {
        let at = |seconds: i64| Timestamp::from_millis(1_767_225_600_000 + seconds * 1_000);
        let rate = Some(Rate { interval: std::time::Duration::from_secs(2), burst: 3 });
        let mut gate = Gate::default();
        gate.spend(rate, at(3_600), 3);
        assert_eq!(gate.room(rate, at(0), 10), 0);
        assert_eq!(gate.room(rate, at(2), 10), 1);
        assert_eq!(gate.room(rate, at(6), 10), 3);
    }

    #[test]
    fn a_longer_pause_is_not_shortened_and_a_pause_ends_at_its_time() {
        let at = Timestamp::from_millis;
        let mut gate = Gate::default();
        assert_eq!(gate.hold(at(500)), at(500));
        assert_eq!(gate.hold(at(200)), at(500));
        assert_eq!(gate.held(at(499)), Some(at(500)));
        assert_eq!(gate.held(at(500)), None);
    }
}
